"""Whether an endpoint can be attacked at all: it answers, and accepts the keys and the model."""

from __future__ import annotations

from loadtests.hostile.target import CHAT, Target
from serving.http_client import NotHttp, Unreachable, ask

TIMEOUT_S = 120.0


def unfit(target: Target, key_env: str, other_key_env: str) -> str | None:
    """The reason why an attack would say nothing about the endpoint; None without one.

    Args:
        key_env: the environment variable that has the attacker's key, and `other_key_env` the good client's.
    """
    if target.key and target.key == target.other_key:
        return f"{key_env} and {other_key_env} hold the same key: give two, of two tenants"
    for env, key in ((key_env, target.key), (other_key_env, target.other_key)):
        if (said := _asked(target, env, key)) is not None:
            return said
    return None


def _asked(target: Target, env: str, key: str) -> str | None:
    headers = {"content-type": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    url = f"http://{target.authority}"
    try:
        # The attack uses no proxy either.
        answer = ask(
            url + CHAT,
            method="POST",
            headers=headers,
            body=target.chat(),
            timeout_s=TIMEOUT_S,
            is_inside=True,
        )
    except (Unreachable, NotHttp) as error:
        return f"{url} cannot be attacked: {error}"
    if answer.status == 401:
        return f"{env}: {'the endpoint does not know this key' if key else 'the endpoint requires a key'}"
    if answer.status == 403:
        return f"{env}: this key may not ask the model that --model names"
    if answer.status == 404:
        return "--model: the endpoint has no such model"
    if answer.status != 200:
        return f"{url} answers a small chat with status {answer.status}: it must be healthy before an attack"
    return None
