"""`gracl hub`: a model as a repository of the Hugging Face hub: saved, pushed, pulled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gracl.commands.options import Flat, Group
from gracl.terminal import console, print_pushed

if TYPE_CHECKING:
    from gracl.repository import Sayings

SavedRun = Annotated[
    tyro.conf.Positional[str],
    tyro.conf.arg(metavar="RUN", help="A run's folder; or a model.safetensors, of less is known."),
]
Name = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ORG/NAME")]


@dataclass(frozen=True)
class CardText:
    """What only you can say in the model's card."""

    license: str | None = None
    """Of the weights, as the hub calls it: apache-2.0, cc-by-nc-4.0, ...; or other."""
    license_name: str | None = None
    """With --license other: what it is called."""
    license_link: str | None = None
    """Where its text is."""
    data_license: str | None = None
    """Of the images trained on."""
    datasets: tuple[str, ...] = ()
    """What the training data are called, best as the hub has them; the run's name if not given."""
    title: str | None = None
    """Of the card."""
    notes: str | None = None
    """Markdown for the card's end."""


@dataclass(frozen=True)
class Save:
    """Write a run's model and its card into a folder, as the Hugging Face hub has models."""

    run: SavedRun
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """A new folder, or one that this command wrote."""
    card: Annotated[CardText, Flat] = field(default_factory=CardText)
    repo: str | None = None
    """ORG/NAME that the card says to load it by."""


@dataclass(frozen=True)
class Push:
    """Put a run's model and its card on the Hugging Face hub; private unless you say --public."""

    run: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(metavar="RUN", help="A run's folder, or one that 'gracl hub save' wrote."),
    ]
    name: Name
    """Repository on the hub; made if it does not exist."""
    card: Annotated[CardText, Flat] = field(default_factory=CardText)
    public: bool = False
    """Everybody may see it. Whoever has the model can search for those it was trained on."""
    dry_run: bool = False
    """Write and check everything, say what would go there, and ask nobody."""
    message: str = "A model, by gracl"
    """Of the commit."""


@dataclass(frozen=True)
class Pull:
    """Copy a model of the Hugging Face hub into a folder, and check it."""

    name: Name
    """Repository on the hub."""
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """A new folder, or one that 'gracl hub' wrote."""
    revision: str | None = None
    """A branch, a tag or a commit."""


def save(command: Save) -> None:
    """Write a model's folder."""
    from gracl.repository import save_pretrained

    folder = save_pretrained(
        command.run, command.folder, repo_id=command.repo, **_sayings(command.card)
    )
    console.print(f"{folder}: read its README.md, and say there what gracl cannot know", soft_wrap=True)


def push(command: Push) -> None:
    """Put a model on the hub."""
    from gracl.hub import push_to_hub

    done = push_to_hub(
        command.run,
        command.name,
        private=not command.public,
        commit_message=command.message,
        dry_run=command.dry_run,
        **_sayings(command.card),
    )
    print_pushed(done)


def pull(command: Pull) -> None:
    """Copy a model of the hub."""
    from gracl.hub import pull_from_hub

    folder = pull_from_hub(command.name, command.folder, revision=command.revision)
    console.print(f"{folder}: {command.name}, fingerprint checked", soft_wrap=True)


def _sayings(card: CardText) -> Sayings:
    return {
        "license": card.license,
        "license_name": card.license_name,
        "license_link": card.license_link,
        "data_license": card.data_license,
        "datasets": card.datasets,
        "title": card.title,
        "notes": card.notes,
    }


HUB = Group(
    "Share models by the Hugging Face hub: save, push, pull.",
    {
        "save": Save,
        "push": Push,
        "pull": Pull,
    },
)
ACTIONS: dict[type, Callable[[Any], bool | None]] = {
    Save: save,
    Push: push,
    Pull: pull,
}
