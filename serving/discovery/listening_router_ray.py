"""The listening router: a RequestRouter of Ray's that records what Ray knows of replicas and chooses none.

Ray Serve creates the router inside the process that holds a deployment's handle and calls
`update_replicas` whenever replicas or their statistics change. Asking Ray to choose a replica costs an RPC of
2.5 ms; to read the table costs microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.serve.request_router import FIFOMixin, PendingRequest, RequestRouter, RunningReplica

from serving.config.rerouting import GATEWAY_DEPLOYMENT
from serving.discovery import replica_table
from serving.discovery.directory import Replica
from serving.replica_facts import ModelCard, ReplicaMetadata, ReplicaStats
from serving.replica_protocol import MODEL_DEPLOYMENT, PREFILL_DEPLOYMENT


class ListeningRouter(FIFOMixin, RequestRouter):  # type: ignore[misc]
    """Keeps `replica_table` current; its own choice serves control calls only."""

    def initialize_state(self, card: Mapping[str, Any] | None = None) -> None:
        """Args: card: an encoded `ModelCard` of the deployment's: the model may never have had a replica."""
        app = self._deployment_id.app_name
        if not card or self._computes_prompts or replica_table.SEEN.get(app):
            return
        # The card of the last replica may say more than the deployment does.
        known = replica_table.CARDS.get(app)
        if known is None or not known.says(card):
            replica_table.CARDS[app] = ModelCard.parse(card)

    def update_backoff_params(self, *args: Any, **kwargs: Any) -> None:
        """Note a changed deployment: this is the only call that Ray makes then."""
        super().update_backoff_params(*args, **kwargs)
        if self._deployment_id.name == MODEL_DEPLOYMENT:
            replica_table.CHANGED_DEPLOYMENTS.add(self._deployment_id.app_name)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        if self._deployment_id.name == GATEWAY_DEPLOYMENT:
            reports = {
                gateway.replica_id.unique_id: dict(gateway.routing_stats or {})
                for gateway in replicas
            }
            for gone in replica_table.GATEWAYS.keys() - reports.keys():
                del replica_table.GATEWAYS[gone]
            replica_table.GATEWAYS.update(reports)
            return
        app = self._deployment_id.app_name
        before = {replica.id: replica.stats for replica in self._table.get(app, ())}
        found, card = [], None
        for replica in replicas:
            metadata = ReplicaMetadata.parse(replica.replica_metadata or {})
            if metadata is not None:
                found.append(_replica(replica, metadata, before))
                card = metadata.card or card
        # A model's own replicas say what it is, not those that compute prompts for them.
        if card and not self._computes_prompts:
            self._take_card(app, ModelCard.parse(card))
        self._table[app] = tuple(found)

    def _take_card(self, app: str, card: ModelCard) -> None:
        if replica_table.CARDS.get(app) != card:
            replica_table.CARDS[app] = card

    def on_replica_actor_died(self, replica_id: Any) -> None:
        super().on_replica_actor_died(replica_id)
        app = self._deployment_id.app_name
        gone = replica_id.unique_id
        if self._deployment_id.name == GATEWAY_DEPLOYMENT:
            replica_table.GATEWAYS.pop(gone, None)
            return
        self._table[app] = tuple(
            replica for replica in self._table.get(app, ()) if replica.id != gone
        )

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """All replicas, in any order: only control calls come this way."""
        return [candidate_replicas]

    @property
    def _computes_prompts(self) -> bool:
        return bool(self._deployment_id.name == PREFILL_DEPLOYMENT)

    @property
    def _table(self) -> dict[str, tuple[Replica, ...]]:
        return replica_table.PREFILL_SEEN if self._computes_prompts else replica_table.SEEN


def _replica(
    replica: RunningReplica, metadata: ReplicaMetadata, before: Mapping[str, ReplicaStats]
) -> Replica:
    id_, report = replica.replica_id.unique_id, replica.routing_stats or {}
    stats = before.get(id_)
    # Who reads reports knows an old one by its identity.
    if stats is None or stats.reported != report:
        stats = ReplicaStats.parse(report)
    return Replica(id_, metadata.base_url, metadata.token, stats, metadata.build)
