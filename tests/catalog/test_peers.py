from replicator.catalog.catalog import Catalog
from replicator.catalog.peers import PeerRow
from replicator.ids import Identity

BO = Identity(bytes([2]) * 32)


def test_an_unknown_peer_is_an_empty_row(catalog: Catalog) -> None:
    assert catalog.peers.get(BO) == PeerRow(identity=BO)


def test_a_peer_is_remembered_as_given_and_replaced(catalog: Catalog) -> None:
    row = PeerRow(
        identity=BO,
        endpoints=("bo.example:7710", "[2001:db8::1]:7710"),
        certificate=b"\x30",
        incarnation=bytes(16),
        offer=b"signed",
        offer_number=3,
        claim_number=4,
        quota=10**11,
        used=1,
        free=2,
        contacted_ns=5,
        failing_since_ns=6,
        last_error="no answer",
    )
    catalog.peers.put(PeerRow(identity=BO, last_error="older"))
    catalog.peers.put(row)
    assert catalog.peers.get(BO) == row
