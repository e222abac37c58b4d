"""The directory: the models and replicas of the site, as the gateway knows them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from serving.api import NO_SUCH_MODEL
from serving.errors import ModelNotFoundError
from serving.replica_facts import ModelCard, ReplicaStats


@dataclass(frozen=True)
class Replica:
    """One engine and the address of its HTTP app."""

    id: str
    base_url: str
    token: str
    stats: ReplicaStats = field(default_factory=ReplicaStats)
    # Replicas of the same build read each other's KV caches; "" where prefill and decode are not apart.
    build: str = ""

    @property
    def machine(self) -> str:
        """The address of its node."""
        return urlsplit(self.base_url).hostname or ""


@dataclass(frozen=True)
class Model:
    """One hosted model: its card and the replicas that answer now."""

    id: str
    card: ModelCard
    replicas: tuple[Replica, ...] = ()
    state: str = "RUNNING"
    # Numbers of replicas by Serve's state of them: running, starting, stopping.
    wanted: Mapping[str, int] = field(default_factory=dict)
    # Prefill replicas, and Serve's states of them; most models have none.
    prefill: tuple[Replica, ...] = ()
    prefill_wanted: Mapping[str, int] = field(default_factory=dict)
    # Whether Serve failed several times in a row to start a replica.
    fails_to_start: bool = False

    @property
    def task(self) -> str | None:
        """chat, embed, rerank or guard; None while no replica has reported."""
        return self.card.task

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names clients may use."""
        return self.card.aliases

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of LoRA adapters that the same engine serves."""
        return self.card.adapters

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that clients may use, except the id."""
        return (*self.aliases, *self.adapters)

    @property
    def prefill_min_tokens(self) -> int | None:
        """The prompt length from which prefill replicas compute it; None for a model without them."""
        return self.card.prefill_min_tokens

    def served_name(self, name: str) -> str:
        """The engine's name for the name a client used: an adapter, or the model itself."""
        return name if name in self.adapters else self.id


class Directory:
    """An immutable picture of the site, replaced as a whole when something changes."""

    def __init__(self, models: Iterable[Model] = ()) -> None:
        self.models: dict[str, Model] = {model.id: model for model in models}
        self._names = _names(self.models)

    def replaced(self, changed: Collection[Model], gone: Collection[str] = ()) -> Directory:
        """A new picture: these models replace those with their ids, and models that are gone are left out."""
        new = Directory.__new__(Directory)
        new.models = self.models | {model.id: model for model in changed}
        for model_id in gone:
            new.models.pop(model_id, None)
        same = new.models.keys() == self.models.keys() and all(
            model.names == self.models[model.id].names for model in changed
        )
        new._names = self._names if same else _names(new.models)
        return new

    def resolve(self, name: str) -> Model:
        """The model that answers to a name, an alias or an adapter's name.

        Raises:
            ModelNotFoundError: with status 404; the unknown name is not repeated.
        """
        model = self.get(name)
        if model is None:
            raise ModelNotFoundError(NO_SUCH_MODEL, param="model")
        return model

    def get(self, name: str) -> Model | None:
        """The model that answers to a name; None without one."""
        model_id = self._names.get(name)
        return None if model_id is None else self.models[model_id]


def _names(models: Mapping[str, Model]) -> dict[str, str]:
    """The model of each name; an id is never another model's name."""
    names = {name: model.id for model in models.values() for name in model.names}
    return names | {name: name for name in models}
