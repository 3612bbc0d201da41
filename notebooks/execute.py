"""Execute notebooks and save them with their outputs: ``python notebooks/execute.py``; ``make notebooks``."""

import argparse
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(path: Path) -> nbformat.NotebookNode:
    """
    Run a notebook from its own folder.

    :param path: the notebook
    :return: it, with its outputs and without what a machine or a moment adds
    :raises nbclient.exceptions.CellExecutionError: if a cell fails
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=3600, record_timing=False, coalesce_streams=True)
    # Figures go into the notebook, whatever else is set
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    client.execute(cwd=str(path.parent), env=environment)
    notebook.metadata = METADATA
    for cell in notebook.cells:
        cell.metadata = {}
    return notebook


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Execute notebooks and save them with their outputs.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all in this folder")
    parser.add_argument("--output", type=Path, help="folder to write them to (default: in place)")
    options = parser.parse_args()
    for path in options.notebooks or sorted(FOLDER.glob("*.ipynb")):
        notebook = execute(path)
        nbformat.write(notebook, (options.output or path.parent) / path.name)
        print(path.name)


if __name__ == "__main__":
    main()
