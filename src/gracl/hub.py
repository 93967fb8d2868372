"""Models on the Hugging Face hub: taken from there, and put there.

What goes there is the folder that `gracl.save_pretrained` writes; no other file is ever uploaded.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Unpack

from gracl.errors import ConfigError, HubError, WeightsError
from gracl.files import DESCRIPTION, WEIGHTS, fetch_model, load_model, read_description, write
from gracl.models.embedder import Embedder
from gracl.models.fingerprint import fingerprint
from gracl.models.hub import HUB, explain, fetch, unreachable
from gracl.paths import is_there
from gracl.repository import CARD, FILES, Sayings, Source, require_own, save_pretrained

# -- from the hub ---------------------------------------------------------------------------------


def from_pretrained(
    name_or_folder: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | None = None,
) -> Embedder:
    """A model that `save_pretrained` wrote, on the CPU, in eval mode.

    Nothing is unpickled, no code is loaded, and only config.json and model.safetensors are fetched. The
    fingerprint in the one is that of the weights in the other.

    Args:
        name_or_folder: a folder, if there is one of this name; else a repository of the Hugging Face
            hub as "organisation/name", with "hf-hub:" before it or without.
        revision: a branch, a tag or a commit of the repository.
        cache_dir: where the hub's files are kept; its own cache if not given.
        local_files_only: take them from there, and ask nobody.
        token: of the hub; what `hf auth login` has stored if not given.

    Raises:
        WeightsError: it cannot be had, is damaged, or is no model of gracl.
        FingerprintError: the weights are not those that are described.

    >>> model = from_pretrained("model")                  # doctest: +SKIP
    >>> model = from_pretrained("organisation/name")      # doctest: +SKIP
    """
    name = name_or_folder.as_posix() if isinstance(name_or_folder, Path) else name_or_folder
    folder = Path(name).expanduser()
    if name.startswith(HUB) or not is_there(folder):
        repository = name.removeprefix(HUB)
        if isinstance(name_or_folder, Path) or not _is_name(repository):
            raise WeightsError(
                f"{name} is neither a folder that exists nor the name of a repository; expected a "
                "folder, or ORGANISATION/NAME"
            )
        folder = fetch_model(
            repository,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
        )
    read_description(folder)
    return load_model(folder)


def pull_from_hub(
    repository: str, folder: str | Path, *, revision: str | None = None, token: str | None = None
) -> Path:
    """Copies a model of the hub into a folder, once it was loaded and its fingerprint agreed.

    Args:
        repository: "organisation/name".
        folder: new, empty, or what `save_pretrained` wrote before.
        revision: a branch, a tag or a commit.
        token: of the hub.

    Raises:
        ConfigError: the folder holds something else.
        WeightsError: it cannot be had, or is no model of gracl.
    """
    folder = Path(folder).expanduser()
    require_own(folder)
    cached = fetch_model(repository.removeprefix(HUB), revision=revision, token=token)
    load_model(cached)
    fetch(repository.removeprefix(HUB), CARD, revision=cached.name, token=token)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (DESCRIPTION, CARD, WEIGHTS):
        write(folder / name, (cached / name).read_bytes())
    return folder


# -- to the hub -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pushed:
    """What went to the hub, or would go."""

    repository: str
    url: str
    """Of the repository."""
    private: bool
    """As it is on the hub; in a dry run, as it would be made."""
    files: dict[str, int]
    """Each file that goes there, and its size in bytes."""
    fingerprint: str
    license: str
    commit: str | None
    """The commit's address; None in a dry run."""


def push_to_hub(
    source: Source,
    repo_id: str,
    *,
    private: bool = True,
    token: str | None = None,
    commit_message: str = "A model, by gracl",
    dry_run: bool = False,
    **said: Unpack[Sayings],
) -> Pushed:
    """Puts a model and its card on the Hugging Face hub; private unless told otherwise.

    Exactly three files go there. Whoever has the model can search for those it was trained on, so think
    before you make one public that knows people.

    Args:
        source: see `save_pretrained`. A folder that it wrote goes as it is, with the card as you edited
            it.
        repo_id: "organisation/name"; made if it does not exist.
        private: who may see it: you and your organisation, or everybody.
        token: of the hub, with the right to write; what `hf auth login` has stored if not given.
        commit_message: of the commit.
        dry_run: write and check all, and ask nobody.
        **said: as in `save_pretrained`: license, which must be named, license_name, data_license, ...

    Raises:
        ConfigError: no licence is named.
        HubError: the hub refuses or does not answer, or there is something else in the repository, or
            it is public and should be private.

    >>> push_to_hub("runs/photos", "organisation/name", license="mit", dry_run=True)  # doctest: +SKIP
    """
    _require_name(repo_id)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "model")
        if isinstance(source, str | Path) and _is_saved(Path(source).expanduser()):
            if any(said.values()):
                raise ConfigError(
                    f"{source} has its card already, so {', '.join(said)} cannot be given here. Edit "
                    f"its {CARD}, or push the run"
                )
            folder = Path(source).expanduser()
        else:
            _require_named(said.get("license"))
            save_pretrained(source, folder, repo_id=repo_id, **said)
        named = _licence_of(folder)
        _require_named(named)
        model = from_pretrained(folder)
        files = {name: (folder / name).stat().st_size for name in FILES}
        url, commit = _address(repo_id), None
        if not dry_run:
            private, commit = _upload(folder, repo_id, private, token, commit_message)
    return Pushed(repo_id, url, private, files, fingerprint(model), named, commit)


def _upload(
    folder: Path, repository: str, private: bool, token: str | None, message: str
) -> tuple[bool, str]:
    """Makes the repository and fills it; whether it is private, and the commit's address."""
    from huggingface_hub import HfApi, constants

    silent = (
        "HF_HUB_OFFLINE is set, so the hub is not asked" if constants.HF_HUB_OFFLINE else unreachable()
    )
    if silent:
        raise HubError(f"{repository} cannot be uploaded: {silent}. Nothing was changed")
    api = HfApi(token=token, library_name="gracl", library_version=metadata.version("gracl"))
    try:
        api.create_repo(repository, private=private, repo_type="model", exist_ok=True)
        found = api.model_info(repository)
        _require_fit(found, repository, private, token)
        done = api.upload_folder(
            repo_id=repository,
            repo_type="model",
            folder_path=folder,
            allow_patterns=list(FILES),
            commit_message=message,
        )
    except HubError:
        raise
    except Exception as error:  # the client raises what it likes
        raise HubError(
            f"{repository} cannot be uploaded: {explain(error, repository)}. The model and its card "
            "are as they were; the same command tries again"
        ) from error
    return bool(found.private), str(done.commit_url)


def _require_fit(found: Any, repository: str, private: bool, token: str | None) -> None:
    """Refuses to publish what should be private, and to write over what is not gracl's."""
    if private and not found.private:
        raise HubError(
            f"{_address(repository)} exists and is public, so nothing was uploaded. Make it private "
            "there, give another name, or say that the model may be public (--public)"
        )
    names = {file.rfilename for file in found.siblings or ()}
    ours = not names & {WEIGHTS, DESCRIPTION}  # a new one holds a README.md at most
    if DESCRIPTION in names:
        try:
            read_description(fetch(repository, DESCRIPTION, token=token).parent)
            ours = True
        except WeightsError:
            ours = False
    if not ours:
        raise HubError(
            f"{_address(repository)} holds a model that is not gracl's, so nothing was uploaded. Give "
            "another name"
        )


def _is_saved(folder: Path) -> bool:
    try:
        read_description(folder)
    except WeightsError:
        return False
    return True


def _licence_of(folder: Path) -> str:
    """What the card's front matter names; its name, where it is "other"."""
    from huggingface_hub import ModelCard

    if not (folder / CARD).is_file():
        raise ConfigError(f"{folder} has no {CARD}; a model without a card is of no use. Push the run")
    try:
        about: dict[str, Any] = ModelCard.load(folder / CARD).data.to_dict()
    except Exception as error:
        raise ConfigError(f"{folder / CARD}: its front matter cannot be read: {error}") from error
    license_ = str(about.get("license") or "unknown")
    return str(about.get("license_name") or "unknown") if license_ == "other" else license_


def _require_named(licence: str | None) -> None:
    if licence in (None, "", "unknown"):
        raise ConfigError(
            "no licence is named, and without one nobody may use the model: name that of the weights, "
            "as --license apache-2.0, or --license other with --license-name NAME"
        )


def _is_name(repository: str) -> bool:
    part = r"[A-Za-z0-9_]([\w.-]*[A-Za-z0-9_])?"
    fits = re.fullmatch(f"{part}/{part}", repository, re.ASCII)
    return fits is not None and not re.search(r"--|\.\.|\.git$", repository) and len(repository) <= 96


def _require_name(repository: str) -> None:
    if not _is_name(repository):
        raise ConfigError(
            f"'{repository}' is no name of a repository on the hub; expected ORGANISATION/NAME"
        )


def _address(repository: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repository}"
