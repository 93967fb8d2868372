"""Files of a model on the Hugging Face hub, or of the hub's cache on this machine."""

from __future__ import annotations

import logging
from pathlib import Path

from gracl.errors import WeightsError

HUB = "hf-hub:"
"""What stands before the name of a repository of the hub."""
PATIENCE = 4
"""Seconds that the hub has to answer at all."""
logger = logging.getLogger(__name__)


def fetch(
    repository: str,
    name: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | None = None,
) -> Path:
    """One file of a model's repository: from the hub, or from its cache where the hub is out of reach.

    Args:
        repository: "org/name".
        name: of the file.
        revision: a branch, a tag or a commit; the newest state of `main` if not given.
        cache_dir: where files are kept; the hub's own cache if not given.
        local_files_only: take it from the cache, and ask nobody. `HF_HUB_OFFLINE=1` means the same.
        token: of the hub; what `hf auth login` has stored if not given.

    Returns:
        Its path in the cache; its folder is called by the commit.

    Raises:
        WeightsError: it cannot be had, and what to do.
    """
    from huggingface_hub import constants, errors, hf_hub_download

    offline = local_files_only or constants.HF_HUB_OFFLINE
    silent = "" if offline else unreachable()
    if silent:
        logger.warning("%s; looking for %s of %s in the cache", silent, name, repository)
    try:
        return Path(
            hf_hub_download(
                repository,
                name,
                revision=revision,
                cache_dir=cache_dir,
                local_files_only=bool(offline or silent),
                token=token,
            )
        )
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        why = silent or "the hub is not asked: HF_HUB_OFFLINE or local_files_only is set"
        raise WeightsError(
            f"{HUB}{repository} cannot be had: {why}, and {cache_dir or constants.HF_HUB_CACHE} has "
            f"no {name} of it{_at(revision)}. Connect, or give a folder that holds the model"
        ) from error
    except Exception as error:  # the client raises what it likes
        raise WeightsError(
            f"{HUB}{repository} cannot be had: {explain(error, repository, name, revision)}"
        ) from error


def unreachable() -> str:
    """Says so within seconds if the hub does not answer, where its client would try for a minute."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from huggingface_hub import constants

    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=PATIENCE).close()
    except HTTPError:
        return ""  # whatever it says, it answers
    except OSError as error:
        reason = getattr(error, "reason", error)
        return f"{constants.ENDPOINT} does not answer ({reason})"
    return ""


def explain(error: Exception, repository: str, name: str = "", revision: str | None = None) -> str:
    """What the hub's client ran into, and what to do about it.

    >>> explain(ValueError("No."), "a/b")
    'No'
    """
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{repository}"
    if isinstance(error, errors.GatedRepoError):
        return f"it is gated. Ask for access at {page}, then 'hf auth login', or give a token"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"there is no {page}, or it is private and not yours. Check the name; for a private "
            "one 'hf auth login', or give a token"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{page} has no revision '{revision}'. Give a branch, a tag or a commit that it has"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{page} has no {name}{_at(revision)}, so it is no model of gracl"
    if isinstance(error, errors.HFValidationError):
        return f"'{repository}' is no name of a repository; expected ORGANISATION/NAME"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403) or isinstance(error, errors.LocalTokenNotFoundError):
        return (
            "the hub does not let you. 'hf auth login' with a token that may do this, or give the token"
        )
    # The second line of some says what the first complains of.
    return " ".join(str(error).split("\n")[:2]).rstrip(".") or repr(error)


def _at(revision: str | None) -> str:
    return f" at '{revision}'" if revision else ""
