"""Weights from a Hugging Face hub: `hf:REPO/FILE`, resumed and checked by its own client."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from folkmoot.errors import ConfigError, WeightsError


def download(name: str, folder: Path) -> Path:
    """The local path of OWNER/REPO/FILE, downloaded if need be. Raises `WeightsError`, `ConfigError`."""
    owner, _, rest = name.partition("/")
    repo, _, file = rest.partition("/")
    if not (owner and repo and file):
        raise ConfigError(f"hf:{name} does not name a file; write hf:OWNER/REPO/FILE.gguf")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise WeightsError("hf: needs the hub extra; run: pip install 'folkmoot[hub]'") from error
    with suppress(LocalEntryNotFoundError):  # what is here is used without asking anybody
        return Path(hf_hub_download(f"{owner}/{repo}", file, cache_dir=folder, local_files_only=True))
    try:
        return Path(hf_hub_download(f"{owner}/{repo}", file, cache_dir=folder))
    except LocalEntryNotFoundError as error:
        raise WeightsError(f"hf:{name} is not here and the hub cannot be reached: {error}") from error
    except (HfHubHTTPError, OSError) as error:
        raise WeightsError(f"hf:{name} cannot be downloaded: {str(error).splitlines()[0]}") from error
