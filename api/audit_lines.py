"""The audit log: who did what."""

from typing import Any

from api.auth import is_on_record, requires
from api.pagination import page
from api.resources import Resource
from api.schemas.audit import AuditPageSchema, AuditQuery
from notifier.models import AuditLine
from notifier.security.api_keys import Scope
from notifier.security.audit_log import filtered

blp = Resource("audit", __name__, url_prefix="/api/v1/audit", description="Who did what, from where, and when.")


@blp.route("")
@requires(Scope.ADMIN)
@is_on_record
@blp.arguments(AuditQuery, location="query", as_kwargs=False)
@blp.response(200, AuditPageSchema)
def list_audit(asked: dict[str, Any]) -> Any:  # noqa: ANN401 -- a page's schema dumps it
    """List lines of the audit log, newest first. Reading it is on record too."""
    query = filtered(asked["created_after"], asked["created_before"], asked["actor"], asked["target"])
    if asked["action"] is not None:
        query = query.where(AuditLine.action == asked["action"])
    return page(query, AuditLine.id, asked)
