"""``python with_fake_hub.py <folder> <command> ...``: the commands, with a folder in place of the Hugging Face Hub."""

import shutil
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import LocalEntryNotFoundError

from sb3_smac.zoo.__main__ import main

HUB = Path(sys.argv.pop(1))


class HfApi:
    def create_repo(self, repo_id: str, **kwargs: Any) -> str:
        (HUB / repo_id).mkdir(parents=True, exist_ok=True)
        return repo_id

    def snapshot_download(self, repo_id: str, local_dir: Path) -> None:
        shutil.copytree(HUB / repo_id, local_dir)

    def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> None:
        shutil.copytree(folder_path, HUB / repo_id, dirs_exist_ok=True)


def hf_hub_download(repo_id: str, filename: str, **kwargs: Any) -> str:
    path = HUB / repo_id / filename
    if not path.exists():
        raise LocalEntryNotFoundError(filename)
    return str(path)


huggingface_hub.HfApi = HfApi
huggingface_hub.hf_hub_download = hf_hub_download
sys.exit(main())
