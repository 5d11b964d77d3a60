"""Whose an offer is: nobody's word counts but that of the provider itself, whoever hands it on."""

from dataclasses import dataclass

from replicator.crypto.sign import Context, signer_of, verify
from replicator.errors import IntegrityError
from replicator.format.offer import Offer, decode_offer
from replicator.ids import Identity, identity_of


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedOffer:
    """An offer that the provider ``identity`` signed; ``signed`` are its bytes."""

    identity: Identity
    offer: Offer
    signed: bytes


def verify_offer(signed: bytes) -> VerifiedOffer:
    """Return what a provider says of itself, after checking that it is the provider that says it.

    Raises:
        FormatError: it is no offer.
        IntegrityError: its signature does not hold, or it is signed by another than it is of.
    """
    key = signer_of(signed)
    offer = decode_offer(verify(signed, Context.OFFER, [key]))
    if offer.provider_key != key:
        raise IntegrityError("offer: signed by another provider than it is of")
    return VerifiedOffer(identity=identity_of(key), offer=offer, signed=signed)
