"""API keys: made once, stored as hashes, looked up in constant time. Pure but for the maker."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from serving.config.admission import Priority
from serving.config.keys import INFERENCE, SCOPES, KeyConfig, Scope, hash_key
from serving.config.revisions import public_name
from serving.errors import AuthenticationError, ComptoirError, PermissionDeniedError, ScopeError

PREFIX = "sk-comptoir-"
# No key can have this name.
NOBODY = "(unknown)"


@dataclass(frozen=True)
class Caller:
    """The sender of a request, by its key: the tenant that waits its turn and that the bill is for."""

    name: str
    models: frozenset[str]
    priority: Priority = "standard"
    weight: float = 1.0
    # Separates what the engines cache of this caller's prompts from everyone else's; not guessable.
    cache_salt: str | None = None
    scopes: frozenset[Scope] = frozenset(INFERENCE)
    # Stands for the key where its use is written down (`key_id`); "" where there are no keys.
    id: str = ""

    @property
    def sees_metrics(self) -> bool:
        """Whether all of /metrics is for this caller; others see their own rows."""
        return "metrics" in self.scopes or self.sees_site

    @property
    def sees_site(self) -> bool:
        """Whether all of /status is for this caller."""
        return "operator" in self.scopes

    def needs(self, *scopes: Scope) -> None:
        """Refuse a caller who has none of these scopes.

        Raises:
            ScopeError: with status 403; it names what is needed.
        """
        if self.scopes.isdisjoint(scopes):
            raise ScopeError(
                f"this API key lacks the scope {' or '.join(repr(one) for one in scopes)}; "
                f"it has: {', '.join(sorted(self.scopes))}"
            )

    def may_use(self, model_id: str) -> bool:
        """Whether the key allows this model; who may use a model may use each of its revisions."""
        return "*" in self.models or model_id in self.models or public_name(model_id) in self.models

    def require(self, model_id: str) -> None:
        """Refuse a model (or adapter) that the key does not allow.

        Raises:
            PermissionDeniedError: with status 403.
        """
        if not self.may_use(model_id):
            raise PermissionDeniedError("this API key may not use this model", param="model")


ANONYMOUS = Caller(name="local", models=frozenset({"*"}), scopes=frozenset(SCOPES))


class KeyRing:
    """The keys of a site. Without any, everyone is `ANONYMOUS` (the endpoint is on loopback then)."""

    def __init__(self, keys: Iterable[KeyConfig]) -> None:
        self._callers = {
            key.hash: Caller(
                key.name,
                frozenset(key.models),
                key.priority,
                key.weight,
                _cache_salt(key.hash),
                frozenset(key.scopes),
                key_id(key.hash),
            )
            for key in keys
        }
        self._by_salt = {caller.cache_salt: caller for caller in self._callers.values()}

    def refusal(self, caller: Caller) -> ComptoirError | None:
        """The reason why a caller admitted earlier would be refused now; None when it would be admitted."""
        # Made from the key's hash: the same in every ring that holds the key.
        now = self._by_salt.get(caller.cache_salt) if self._callers else ANONYMOUS
        if now is None:
            return AuthenticationError("this API key has been revoked")
        try:
            now.needs(*INFERENCE)
        except ScopeError as error:
            return error
        return None

    def sharer(self, caller: Caller) -> str:
        """The key that a request counts for where several share something; "" with one key at most."""
        return caller.name if len(self._callers) > 1 else ""

    def __len__(self) -> int:
        return len(self._callers)

    @property
    def names(self) -> dict[str, str]:
        """The name of each key by its `key_id`."""
        return {caller.id: caller.name for caller in self._callers.values() or (ANONYMOUS,)}

    def admit(
        self, needs: Collection[Scope], authorization: str | None, x_api_key: str | None = None
    ) -> Caller:
        """The caller, if the key has one of the scopes: the first check of each endpoint.

        Raises:
            AuthenticationError: with status 401.
            ScopeError: with status 403.
        """
        caller = self.identify(authorization, x_api_key)
        caller.needs(*needs)
        return caller

    def identify(self, authorization: str | None, x_api_key: str | None = None) -> Caller:
        """Find the caller by `Authorization: Bearer KEY`, or Anthropic's `x-api-key: KEY`.

        The lookup is by hash: how long it takes says nothing about any stored key.

        Raises:
            AuthenticationError: with status 401.
        """
        if not self._callers:
            return ANONYMOUS
        scheme, _, bearer = (authorization or "").partition(" ")
        key = bearer.strip() if scheme.lower() == "bearer" else ""
        key = key or (x_api_key or "").strip()
        if not key:
            raise AuthenticationError(
                "no API key: send it as 'Authorization: Bearer YOUR_KEY' (or 'x-api-key: YOUR_KEY')"
            )
        caller = self._callers.get(hash_key(key))
        if caller is None:
            raise AuthenticationError("this API key is not known here")
        return caller


def key_id(key_hash: str) -> str:
    """The id of a key in bills: it cannot be used as a key, nor does it reveal the key's hash."""
    return hmac.new(key_hash.encode(), b"comptoir bills", hashlib.sha256).hexdigest()[:16]


def _cache_salt(key_hash: str) -> str:
    # The same at every gateway without a shared secret; other callers do not know the hash.
    return hmac.new(key_hash.encode(), b"comptoir prefix cache", hashlib.sha256).hexdigest()


def new_key() -> str:
    """A fresh key with 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)
