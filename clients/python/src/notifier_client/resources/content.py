"""Templates and routes: what is said, and to whom."""

from typing import Unpack

from notifier_client.pagination import Listing
from notifier_client.resources.resource import Resource, path_of
from notifier_client.types import Preview, Previewed, Route, RouteOut, Template, TemplateOut, TemplateWithVariants
from notifier_client.types.queries import (
    GetTemplateQuery,
    ListRoutesQuery,
    ListTemplatesQuery,
    ListTemplateVersionsQuery,
)


class Templates(Resource):
    """Texts of messages, in versions."""

    def put(self, name: str, template: Template) -> TemplateOut:
        """Save a template; where it differs from the current version it is a new one."""
        return self._ask(TemplateOut, "PUT", path_of("templates", name), body=template)

    def get(self, name: str, **query: Unpack[GetTemplateQuery]) -> TemplateWithVariants:
        """Read a template with its variants."""
        return self._ask(TemplateWithVariants, "GET", path_of("templates", name), query=query)

    def list(self, **query: Unpack[ListTemplatesQuery]) -> Listing[TemplateOut]:
        """List templates."""
        return self._list(TemplateOut, path_of("templates"), query)

    def versions(self, name: str, **query: Unpack[ListTemplateVersionsQuery]) -> Listing[TemplateOut]:
        """List the versions of a template, newest first."""
        return self._list(TemplateOut, path_of("templates", name, "versions"), query)

    def preview(self, name: str, preview: Preview) -> Previewed:
        """Render a template with data, and send nothing."""
        path = path_of("templates", name, "preview")
        return self._ask(Previewed, "POST", path, body=preview, repeatable=True)


class Routes(Resource):
    """Which people an event type notifies."""

    def put(self, name: str, route: Route) -> RouteOut:
        """Create or replace a route."""
        return self._ask(RouteOut, "PUT", path_of("routes", name), body=route)

    def get(self, name: str, *, reveal: bool = False) -> RouteOut:
        """Read a route."""
        return self._get(RouteOut, path_of("routes", name), reveal=reveal)

    def delete(self, name: str) -> None:
        """Delete a route."""
        self._do("DELETE", path_of("routes", name))

    def list(self, **query: Unpack[ListRoutesQuery]) -> Listing[RouteOut]:
        """List routes."""
        return self._list(RouteOut, path_of("routes"), query)
