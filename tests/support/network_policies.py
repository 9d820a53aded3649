"""A model of NetworkPolicies: the flows that they let through, for the kinds of rules that ours have."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

from tests.support.kubernetes import Document, of_kind, selects


class Party(NamedTuple):
    """Something that speaks or is spoken to: one of our pods, a pod of another namespace, or an address elsewhere."""

    name: str
    #: The labels of a pod of ours.
    labels: dict[str, str] | None = None
    #: The labels of the namespace of somebody else's pod.
    namespace: dict[str, str] | None = None
    address: str | None = None


def _is(party: Party, peer: dict[str, Any]) -> bool:
    """Return whether a rule's peer means a party."""
    assert len(peer) == 1, f"one selector each: {peer}"
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        if party.address is None:
            return False  # a pod's own address is no business of an ipBlock
        address = ip_address(party.address)
        within = [
            net for net in (block["cidr"], *block.get("except", ())) if ip_network(net).version == address.version
        ]
        if not within or address not in ip_network(block["cidr"]):
            return False
        return not any(address in ip_network(net) for net in block.get("except", ()))
    if "podSelector" in peer:
        return party.labels is not None and selects(peer["podSelector"], party.labels)
    return party.namespace is not None and selects(peer["namespaceSelector"], party.namespace)


def _rules(policies: list[Document], pod: Party, kind: str) -> Iterator[list[dict[str, Any]]]:
    """Yield the rules of each policy that holds for a pod in one direction: Ingress or Egress."""
    for policy in policies:
        spec = policy["spec"]
        assert spec.keys() <= {"podSelector", "policyTypes", "ingress", "egress"}
        if kind in spec["policyTypes"] and pod.labels is not None and selects(spec["podSelector"], pod.labels):
            yield spec.get(kind.lower(), [])


def _lets(policies: list[Document], pod: Party, other: Party, kind: str, port: tuple[str, int]) -> bool:
    held = list(_rules(policies, pod, kind))
    if not held:
        return True  # no policy is for it, so that everything is let through
    side = "from" if kind == "Ingress" else "to"
    for rule in (each for rules in held for each in rules):
        ports = [(each["protocol"], each["port"]) for each in rule.get("ports", ())]
        peers = rule.get(side, ())
        if (not ports or port in ports) and (not peers or any(_is(other, peer) for peer in peers)):
            return True
    return False


def lets_through(documents: list[Document], client: Party, server: Party, port: tuple[str, int]) -> bool:
    """Return whether a client may open a connection to a server's port, such as ("TCP", 5432)."""
    policies = of_kind(documents, "NetworkPolicy")
    leaves = client.labels is None or _lets(policies, client, server, "Egress", port)
    return leaves and (server.labels is None or _lets(policies, server, client, "Ingress", port))
