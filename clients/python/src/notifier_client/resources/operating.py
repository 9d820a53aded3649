"""Operating: dead letters, holds, the audit log, statistics, health."""

from typing import Unpack, cast

from notifier_client.errors import ServerError
from notifier_client.pagination import Listing
from notifier_client.resources.resource import Resource, path_of
from notifier_client.transport import call_of
from notifier_client.types import (
    AuditLine,
    DeadLetter,
    DeadLetterAct,
    DeadLetterGroups,
    DeadLetterPreview,
    Health,
    Hold,
    NewDeadLetterAct,
    Ready,
    Requeue,
    Requeued,
    Search,
    Statistics,
    SystemState,
)
from notifier_client.types.queries import (
    GetStatisticsQuery,
    GroupDeadLettersQuery,
    ListAuditQuery,
    ListDeadLetterActsQuery,
    ListDeadLettersQuery,
    SearchEverythingQuery,
)


class DeadLetters(Resource):
    """Dead letters: notifications that failed for good."""

    def get(self, dead_letter_id: str) -> DeadLetter:
        """Read a dead letter."""
        return self._get(DeadLetter, path_of("dead-letters", dead_letter_id))

    def list(self, **query: Unpack[ListDeadLettersQuery]) -> Listing[DeadLetter]:
        """List dead letters, newest first."""
        return self._list(DeadLetter, path_of("dead-letters"), query)

    def delete(self, dead_letter_id: str) -> None:
        """Delete a dead letter."""
        self._do("DELETE", path_of("dead-letters", dead_letter_id))

    def requeue(self, dead_letter_id: str) -> DeadLetter:
        """Send what a dead letter is about again."""
        return self._ask(DeadLetter, "POST", path_of("dead-letters", dead_letter_id, "requeue"))

    def requeue_many(self, filters: Requeue) -> Requeued:
        """Send again what the dead letters are about that match; `{"all": True}` where there is no filter."""
        return self._ask(Requeued, "POST", path_of("dead-letters", "requeue"), body=filters)

    def groups(self, **query: Unpack[GroupDeadLettersQuery]) -> DeadLetterGroups:
        """Count the dead letters that stand, by what they have in common: `by="reason,error"`."""
        return self._ask(DeadLetterGroups, "GET", path_of("dead-letters", "groups"), query=query)

    def preview(self, act: NewDeadLetterAct) -> DeadLetterPreview:
        """See which letters an act would begin with; nothing is changed."""
        asked: NewDeadLetterAct = {**act, "dry_run": True}
        return self._ask(DeadLetterPreview, "POST", path_of("dead-letters", "acts"), body=asked)

    def begin(self, act: NewDeadLetterAct) -> DeadLetterAct:
        """Requeue or drop all dead letters that match, in the background; `act()` tells how far it is."""
        asked: NewDeadLetterAct = {**act, "dry_run": False}
        return self._ask(DeadLetterAct, "POST", path_of("dead-letters", "acts"), body=asked)

    def act(self, act_id: str) -> DeadLetterAct:
        """Read how far an act is."""
        return self._get(DeadLetterAct, path_of("dead-letters", "acts", act_id))

    def acts(self, **query: Unpack[ListDeadLetterActsQuery]) -> Listing[DeadLetterAct]:
        """List acts, newest first."""
        return self._list(DeadLetterAct, path_of("dead-letters", "acts"), query)

    def stop(self, act_id: str) -> DeadLetterAct:
        """Stop an act."""
        return self._ask(DeadLetterAct, "POST", path_of("dead-letters", "acts", act_id, "stop"))

    def resume(self, act_id: str) -> DeadLetterAct:
        """Let a stopped act go on."""
        return self._ask(DeadLetterAct, "POST", path_of("dead-letters", "acts", act_id, "resume"))


class Holds(Resource):
    """Channels and categories that wait until somebody lets them go."""

    def put(self, target: str) -> Hold:
        """Hold a target back."""
        return self._ask(Hold, "PUT", path_of("holds", target))

    def release(self, target: str) -> None:
        """Let a target go."""
        self._do("DELETE", path_of("holds", target))

    def list(self) -> Listing[Hold]:
        """List what is held."""
        return self._list(Hold, path_of("holds"), {})


class Operating(Resource):
    """Health, and the other questions of those who run the service."""

    def audit(self, **query: Unpack[ListAuditQuery]) -> Listing[AuditLine]:
        """List the audit log, newest first."""
        return self._list(AuditLine, path_of("audit"), query)

    def search(self, **query: Unpack[SearchEverythingQuery]) -> Search:
        """Find what has a text as an id, an address or a key."""
        return self._ask(Search, "GET", path_of("search"), query=query)

    def statistics(self, query: GetStatisticsQuery | None = None) -> Statistics:
        """Read figures of a span of time: `{"by": "provider", "from": since}`; the last hour by channel without one."""
        return self._ask(Statistics, "GET", path_of("stats"), query=query)

    def state(self) -> SystemState:
        """Read the state of queues, providers, endpoints, holds and processes."""
        return self._ask(SystemState, "GET", path_of("state"))

    def health(self) -> Health:
        """Ask whether the API's process lives."""
        return self._ask(Health, "GET", "/health")

    def ready(self) -> Ready:
        """Ask how each part is, once: an API that is not ready says so in the same words."""
        try:
            return self._ask(Ready, "GET", "/ready", repeatable=False)
        except ServerError as error:
            if "checks" not in error.document:
                raise
            return cast(Ready, error.document)

    def metrics(self) -> str:
        """Read the API's metrics, in Prometheus' format."""
        return self._transport.request(call_of("GET", "/metrics")).text
