"""People: users, their preferences, the suppression list, export and erasure."""

from typing import Unpack

from notifier_client.pagination import Listing
from notifier_client.resources.resource import Resource, path_of
from notifier_client.types import (
    Channel,
    Decision,
    Erasure,
    Person,
    PreferenceCheck,
    Preferences,
    Suppression,
    SuppressionOut,
    User,
    UserExport,
    UserOut,
)
from notifier_client.types.queries import ListErasuresQuery, ListSuppressionsQuery, ListUsersQuery


class Users(Resource):
    """Where users can be reached."""

    def put(self, user_id: str, user: User) -> UserOut:
        """Create a user, or replace all that is known of one."""
        return self._ask(UserOut, "PUT", path_of("users", user_id), body=user)

    def get(self, user_id: str, *, reveal: bool = False) -> UserOut:
        """Read a user."""
        return self._get(UserOut, path_of("users", user_id), reveal=reveal)

    def delete(self, user_id: str) -> None:
        """Delete a user."""
        self._do("DELETE", path_of("users", user_id))

    def list(self, **query: Unpack[ListUsersQuery]) -> Listing[UserOut]:
        """List users, newest first."""
        return self._list(UserOut, path_of("users"), query)

    def export(self, user_id: str, *, reveal: bool = False) -> UserExport:
        """Read all that is known of a user."""
        return self._get(UserExport, path_of("users", user_id, "export"), reveal=reveal)


class PreferenceOperations(Resource):
    """Preferences: the messages that users want to get, and when."""

    def put(self, user_id: str, preferences: Preferences) -> Preferences:
        """Replace a user's preferences."""
        return self._ask(Preferences, "PUT", path_of("users", user_id, "preferences"), body=preferences)

    def get(self, user_id: str) -> Preferences:
        """Read a user's preferences."""
        return self._get(Preferences, path_of("users", user_id, "preferences"))

    def check(self, question: PreferenceCheck) -> Decision:
        """Ask whether a notification would be sent, and which rule says so."""
        return self._ask(Decision, "POST", path_of("preferences", "check"), body=question, repeatable=True)


class Suppressions(Resource):
    """Addresses that get nothing."""

    def add(self, suppression: Suppression) -> SuppressionOut:
        """Suppress an address on a channel."""
        return self._ask(SuppressionOut, "POST", path_of("suppressions"), body=suppression)

    def list(self, **query: Unpack[ListSuppressionsQuery]) -> Listing[SuppressionOut]:
        """List suppressed addresses, newest first."""
        return self._list(SuppressionOut, path_of("suppressions"), query)

    def lift(self, *, channel: Channel, address: str) -> None:
        """Let an address get messages again."""
        self._do("DELETE", path_of("suppressions"), body={"channel": channel, "address": address})

    def lift_by_id(self, suppression_id: str) -> None:
        """Let an address get messages again, by the id of its suppression."""
        self._do("DELETE", path_of("suppressions", suppression_id))


class People(Resource):
    """Export and erasure of persons, whether or not they are users."""

    def export(self, person: Person) -> UserExport:
        """Read all that is known of a person."""
        return self._ask(UserExport, "POST", path_of("exports"), body=person, repeatable=True)

    def erase(self, person: Person) -> Erasure:
        """Begin to erase a person."""
        return self._ask(Erasure, "POST", path_of("erasures"), body=person)

    def erasure(self, erasure_id: str) -> Erasure:
        """Read how far an erasure is."""
        return self._get(Erasure, path_of("erasures", erasure_id))

    def erasures(self, **query: Unpack[ListErasuresQuery]) -> Listing[Erasure]:
        """List erasures, newest first."""
        return self._list(Erasure, path_of("erasures"), query)
