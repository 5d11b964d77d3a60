"""Who gets a certificate, and who does not."""

from replicator.clock import DAY_S, SKEW_S
from replicator.crypto.certificates import key_of_certificate
from replicator.crypto.sign import Context, SigningKey, verify
from replicator.format.merkle import name_of
from replicator.format.offer import decode_offer
from replicator.settings import DeclaredTenant
from replicator.wire.messages import EnrolRequest, Signed
from tests.fakes import NS, SeededRng
from tests.provider.stand import Stand, refusal
from tests.provider.tenant import MIB, Tenant, data_object, enrol, hire, publish_charter, put, right, secret_of, settle


def _stranger() -> SigningKey:
    return SigningKey(SeededRng("stranger").bytes(32))


def _by_secret(stand: Stand, secret: bytes, tenant: Tenant, key: SigningKey | None = None) -> EnrolRequest:
    return EnrolRequest(
        holder_key=(key or tenant.keeper).public, secret=secret, order=b"", root=tenant.root_statement()
    )


def _by_order(order: bytes, key: SigningKey) -> EnrolRequest:
    return EnrolRequest(holder_key=key.public, secret=b"", order=order, root=b"")


def test_an_invite_makes_a_tenant_and_gives_a_certificate_for_the_key(stand: Stand) -> None:
    tenant = Tenant("new")
    reply = enrol(stand.provider, stand.service, tenant, quota=5 * MIB)
    assert reply.tenant == tenant.id
    assert key_of_certificate(reply.certificate) == tenant.keeper.public
    offer = decode_offer(verify(reply.offer, Context.OFFER, [stand.provider.key.public]))
    assert offer == stand.provider.offer()
    info = stand.service.session(tenant.keeper.public).info()
    assert (info.quota, info.used, info.free, info.charter_number) == (5 * MIB, 0, 5 * MIB, 0)


def test_a_used_invite_is_spent_for_anyone_else(stand: Stand) -> None:
    tenant = Tenant("new")
    secret = secret_of(stand.provider.invite(quota=MIB, label=""))
    stand.service.enrol(_by_secret(stand, secret, tenant))
    assert refusal(lambda: stand.service.enrol(_by_secret(stand, secret, tenant, _stranger()))) == "spent"
    assert refusal(lambda: stand.service.enrol(_by_secret(stand, secret, Tenant("other")))) == "spent"


def test_who_has_no_good_invite_learns_nothing_of_who_is_here(stand: Stand) -> None:
    here, impostor = Tenant("here"), Tenant("impostor")
    enrol(stand.provider, stand.service, here, quota=MIB)
    spent = secret_of(stand.provider.invite(quota=MIB, label=""))
    stand.service.enrol(_by_secret(stand, spent, Tenant("new")))
    impostor.id = here.id
    for secret in (bytes(16), spent):
        request = _by_secret(stand, secret, impostor, _stranger())
        assert refusal(lambda request=request: stand.service.enrol(request)) == "spent"  # type: ignore[misc]
    good = secret_of(stand.provider.invite(quota=MIB, label=""))
    assert refusal(lambda: stand.service.enrol(_by_secret(stand, good, impostor, _stranger()))) == "forbidden"
    stand.service.enrol(_by_secret(stand, good, Tenant("later")))


def test_the_same_holder_may_ask_again_because_an_answer_can_be_lost(stand: Stand) -> None:
    tenant = Tenant("new")
    secret = secret_of(stand.provider.invite(quota=MIB, label=""))
    stand.service.enrol(_by_secret(stand, secret, tenant))
    again = stand.service.enrol(_by_secret(stand, secret, tenant))
    assert key_of_certificate(again.certificate) == tenant.keeper.public
    assert stand.service.session(tenant.keeper.public).info().quota == MIB, "the quota was counted twice"


def test_an_invite_expires_with_a_quarter_of_an_hour_for_wrong_clocks(stand: Stand) -> None:
    secret = secret_of(stand.provider.invite(quota=MIB, label=""))
    late = secret_of(stand.provider.invite(quota=MIB, label=""))
    stand.clock.advance(7 * DAY_S + SKEW_S)
    stand.service.enrol(_by_secret(stand, secret, Tenant("new")))
    stand.clock.advance(1)
    assert refusal(lambda: stand.service.enrol(_by_secret(stand, late, Tenant("newer")))) == "spent"


def test_a_revoked_and_an_unknown_invite_are_refused(stand: Stand) -> None:
    secret = secret_of(stand.provider.invite(quota=MIB, label="gone"))
    stand.provider.revoke_invite(stand.provider.invites()[0].id)
    assert refusal(lambda: stand.service.enrol(_by_secret(stand, secret, Tenant("new")))) == "spent"
    assert refusal(lambda: stand.service.enrol(_by_secret(stand, bytes(16), Tenant("new")))) == "spent"


def test_a_second_invite_adds_its_quota(stand: Stand) -> None:
    before = stand.keeper.info().quota
    enrol(stand.provider, stand.service, stand.tenant, quota=3 * MIB)
    assert stand.keeper.info().quota == before + 3 * MIB


def test_a_tenant_id_belongs_to_the_root_that_came_first(stand: Stand) -> None:
    thief = Tenant("thief", id=stand.tenant.id)
    secret = secret_of(stand.provider.invite(quota=MIB, label=""))
    assert refusal(lambda: stand.service.enrol(_by_secret(stand, secret, thief))) == "forbidden"
    assert stand.provider.invites()[0].state == "open", "a refused enrolment must not spend the invite"


def test_nobody_takes_a_foreign_id_where_its_tenant_is_not_yet_and_so_nobody_erases_it_there(stand: Stand) -> None:
    """Every provider of a tenant knows its id, and may have an invite of another provider."""
    victim = Tenant("victim")
    thief = Tenant("thief", id=victim.id)
    secret = secret_of(stand.provider.invite(quota=MIB, label=""))
    assert refusal(lambda: stand.service.enrol(_by_secret(stand, secret, thief))) == "forbidden"
    assert stand.provider.invites()[0].state == "open"
    assert refusal(lambda: stand.service.erase(thief.erase_order())) == "not-found"
    assert stand.service.enrol(_by_secret(stand, secret, victim)).tenant == victim.id
    assert refusal(lambda: stand.service.erase(thief.erase_order())) == "forbidden"


def test_an_id_of_an_earlier_build_is_let_in_by_the_operators_word_and_keeps_out_nobody_whose_it_is(
    stand: Stand,
) -> None:
    """Such ids are random, and prove nothing."""
    old = Tenant("old", id=bytes(range(16)))
    secret = secret_of(stand.provider.invite(quota=MIB, label=""))
    assert refusal(lambda: stand.service.enrol(_by_secret(stand, secret, old))) == "forbidden"
    victim = Tenant("victim")
    squatter = Tenant("squatter", id=victim.id)
    _admit(stand, _declared(old, MIB), _declared(squatter, MIB))
    assert stand.service.enrol(_by_declaration(old, old.keeper)).tenant == old.id
    assert stand.service.enrol(_by_secret(stand, secret, old)).tenant == old.id, "known here, it may have more"
    stand.service.enrol(_by_declaration(squatter, squatter.keeper))
    more = secret_of(stand.provider.invite(quota=MIB, label=""))
    assert refusal(lambda: stand.service.enrol(_by_secret(stand, more, victim))) == "forbidden"
    stand.service.erase(squatter.erase_order())
    assert stand.service.enrol(_by_secret(stand, more, victim)).tenant == victim.id
    assert refusal(lambda: stand.service.erase(squatter.erase_order())) == "forbidden", "its order is no use again"
    stand.service.erase(victim.erase_order())
    again = secret_of(stand.provider.invite(quota=MIB, label=""))
    assert refusal(lambda: stand.service.enrol(_by_secret(stand, again, victim))) == "forbidden", "its own root did it"


def test_a_root_statement_must_be_signed_by_the_root_it_names(stand: Stand) -> None:
    tenant = Tenant("new")
    secret = secret_of(stand.provider.invite(quota=MIB, label=""))
    statements = {
        "another root's key": tenant.root_statement(root_key=stand.tenant.root.public),
        "a changed byte": tenant.root_statement()[:-1] + b"\x01",
        "too short": b"short",
    }
    words = {
        name: refusal(
            lambda root=root: stand.service.enrol(  # type: ignore[misc]  # the lambda is called at once
                EnrolRequest(holder_key=tenant.keeper.public, secret=secret, order=b"", root=root)
            )
        )
        for name, root in statements.items()
    }
    assert words == {"another root's key": "forbidden", "a changed byte": "forbidden", "too short": "bad-request"}


def test_an_invite_gives_no_rights_once_there_is_a_charter(stand: Stand) -> None:
    stranger = _stranger()
    enrol(stand.provider, stand.service, stand.tenant, holder=stranger)
    session = stand.service.session(stranger.public)
    assert refusal(lambda: put(session, data_object(1))) == "forbidden"


def test_owners_and_roots_orders_enrol_holders_of_known_tenants(stand: Stand) -> None:
    stranger = _stranger()
    stand.service.enrol(_by_order(stand.tenant.order(stranger), stranger))
    assert refusal(lambda: put(stand.service.session(stranger.public), data_object(1))) == "forbidden"
    stand.service.enrol(_by_order(stand.tenant.order(stranger, by=stand.tenant.root), stranger))
    put(stand.service.session(stranger.public), data_object(1))
    stand.service.enrol(_by_order(stand.tenant.order(stranger), stranger))
    put(stand.service.session(stranger.public), data_object(2))


def test_an_order_for_another_key_from_another_signer_or_expired_is_refused(stand: Stand) -> None:
    stranger, other = _stranger(), Tenant("other").node
    tenant = stand.tenant
    assert refusal(lambda: stand.service.enrol(_by_order(tenant.order(other), stranger))) == "forbidden"
    assert refusal(lambda: stand.service.enrol(_by_order(tenant.order(stranger, by=other), stranger))) == "forbidden"
    expiring = tenant.order(stranger, expires_ns=stand.clock.now_ns())
    stand.clock.advance(SKEW_S)
    stand.service.enrol(_by_order(expiring, stranger))
    stand.clock.advance(1)
    assert refusal(lambda: stand.service.enrol(_by_order(expiring, stranger))) == "forbidden"
    forged = bytearray(tenant.order(stranger))
    forged[40] ^= 1
    assert refusal(lambda: stand.service.enrol(_by_order(bytes(forged), stranger))) == "forbidden"
    assert refusal(lambda: stand.service.enrol(_by_order(b"x", stranger))) == "bad-request"


def test_a_request_is_an_invite_or_an_order_not_both_or_none(stand: Stand) -> None:
    tenant = stand.tenant
    for secret, order in ((b"", b""), (bytes(16), tenant.order(tenant.node))):
        request = EnrolRequest(holder_key=tenant.node.public, secret=secret, order=order, root=b"")
        assert refusal(lambda request=request: stand.service.enrol(request)) == "bad-request"  # type: ignore[misc]


def test_a_key_that_is_no_point_of_the_curve_gets_a_useless_certificate_and_no_crash(stand: Stand) -> None:
    secret = secret_of(stand.provider.invite(quota=MIB, label=""))
    request = EnrolRequest(holder_key=b"\xff" * 32, secret=secret, order=b"", root=Tenant("new").root_statement())
    reply = stand.service.enrol(request)
    assert key_of_certificate(reply.certificate) == b"\xff" * 32


def test_an_owner_key_written_into_a_foreign_root_statement_diverts_no_order(stand: Stand) -> None:
    """Anyone can name our owner key in a root statement of theirs; the tenant with a charter is the true one."""
    thief = Tenant("thief")
    secret = secret_of(stand.provider.invite(quota=MIB, label=""))
    root = thief.root_statement(owner_key=stand.tenant.owner.public)
    stand.service.enrol(EnrolRequest(holder_key=thief.keeper.public, secret=secret, order=b"", root=root))
    stranger = _stranger()
    reply = stand.service.enrol(_by_order(stand.tenant.order(stranger), stranger))
    assert reply.tenant == stand.tenant.id


def test_a_key_enrolled_by_someone_else_gives_way_to_its_owners_word(stand: Stand) -> None:
    thief, victim = Tenant("thief"), _stranger()
    enrol(stand.provider, stand.service, thief, holder=victim)
    assert refusal(lambda: enrol(stand.provider, stand.service, stand.tenant, holder=victim)) == "forbidden"
    reply = stand.service.enrol(_by_order(stand.tenant.order(victim), victim))
    assert reply.tenant == stand.tenant.id
    assert stand.service.session(victim.public).info().charter_number == 1


def test_a_key_that_another_tenants_charter_names_stays_there(stand: Stand) -> None:
    other = Tenant("other")
    settle(stand.provider, stand.service, other)
    order = stand.tenant.order(other.node)
    assert refusal(lambda: stand.service.enrol(_by_order(order, other.node))) == "forbidden"


def test_an_unknown_key_has_no_session(stand: Stand) -> None:
    assert refusal(lambda: stand.service.session(_stranger().public)) == "unauthorized"


def test_a_holder_by_owners_order_waits_for_the_first_charter(stand: Stand) -> None:
    tenant = Tenant("new")
    enrol(stand.provider, stand.service, tenant)
    stand.service.enrol(_by_order(tenant.order(tenant.node), tenant.node))
    node = stand.service.session(tenant.node.public)
    assert node.info().charter_number == 0
    assert refusal(lambda: put(node, data_object(1))) == "forbidden"
    keeper = stand.service.session(tenant.keeper.public)
    put(keeper, data_object(7))
    publish_charter(keeper, tenant.charter(keybag=name_of(data_object(7))))
    put(node, data_object(1))


def test_a_holder_that_the_charter_revokes_may_do_nothing_whoever_enrolled_it(stand: Stand) -> None:
    tenant = stand.tenant
    stand.service.enrol(_by_order(tenant.order(tenant.node, by=tenant.root), tenant.node))
    stand.node.info()
    rights = [right(tenant.keeper, "keeper"), right(tenant.node, "node", revoked=True)]
    publish_charter(stand.keeper, tenant.charter(rights, keybag=name_of(data_object(7))))
    assert refusal(stand.node.info) == "forbidden"
    assert refusal(lambda: put(stand.node, data_object(1))) == "forbidden"


def test_the_order_of_time_is_the_providers(stand: Stand) -> None:
    assert stand.node.info().now_ns == stand.clock.now_ns()
    stand.clock.advance(5)
    assert stand.node.info().now_ns == stand.clock.now_ns() == 1_767_225_605 * NS


def test_a_member_that_root_enrolled_too_still_does_what_its_role_does(stand: Stand) -> None:
    """An objection is brought from any home, also a node's that has no certificate of this provider."""
    tenant = stand.tenant
    hire(stand.service, tenant)
    for key in (tenant.node, tenant.maintainer):
        order = tenant.order(key, by=tenant.root)
        stand.service.enrol(EnrolRequest(holder_key=key.public, secret=b"", order=order, root=b""))
    names: list[bytes] = [name_of(data_object(7))]
    stand.call("claim", Signed(statement=tenant.claim(stand.service.identity, 1, names)))
    stand.call("head", Signed(statement=tenant.head(1)))
    maintainer = stand.service.session(tenant.maintainer.public)
    claim = tenant.claim(stand.service.identity, 1, names, by=tenant.maintainer)
    stand.call("claim", Signed(statement=claim), maintainer)
    assert refusal(lambda: stand.call("head", Signed(statement=tenant.head(1)), maintainer)) == "forbidden"


def _declared(tenant: Tenant, quota: int) -> DeclaredTenant:
    return DeclaredTenant(name=tenant.name, root_key=tenant.root.public, quota=quota)


def _admit(stand: Stand, *tenants: DeclaredTenant) -> None:
    stand.service.stop()
    stand.provider.admit(tenants)
    stand.service = stand.provider.start()


def _by_declaration(tenant: Tenant, key: SigningKey, order: bytes | None = None) -> EnrolRequest:
    return EnrolRequest(
        holder_key=key.public, secret=b"", order=order or tenant.order(key), root=tenant.root_statement()
    )


def test_a_declared_tenant_comes_in_by_its_owners_word_and_brings_its_charter(stand: Stand) -> None:
    tenant = Tenant("declared")
    assert refusal(lambda: stand.service.enrol(_by_declaration(tenant, tenant.keeper))) == "forbidden"
    _admit(stand, _declared(tenant, 7 * MIB))
    reply = stand.service.enrol(_by_declaration(tenant, tenant.keeper))
    assert reply.tenant == tenant.id
    keeper = stand.service.session(tenant.keeper.public)
    assert keeper.info().quota == 7 * MIB
    keybag = data_object(7)
    put(keeper, keybag)
    publish_charter(keeper, tenant.charter(keybag=name_of(keybag)))
    stand.service.enrol(_by_order(tenant.order(tenant.node), tenant.node))
    put(stand.service.session(tenant.node.public), data_object(8))


def test_only_who_has_the_declared_root_comes_in(stand: Stand) -> None:
    tenant, other = Tenant("declared"), Tenant("other")
    _admit(stand, _declared(tenant, MIB))
    stranger = _stranger()
    for request in (
        _by_declaration(other, other.keeper),
        _by_declaration(tenant, stranger, other.order(stranger)),
        EnrolRequest(
            holder_key=stranger.public, secret=b"", order=tenant.order(tenant.keeper), root=tenant.root_statement()
        ),
    ):
        assert refusal(lambda request=request: stand.service.enrol(request)) == "forbidden"  # type: ignore[misc]
    assert not [row for row in stand.provider.status()["tenants"] if row["label"] == "declared"], "nothing was written"


def test_an_old_root_statement_that_came_first_does_not_keep_the_owner_of_today_out(stand: Stand) -> None:
    tenant = Tenant("declared")
    _admit(stand, _declared(tenant, MIB))
    stand.service.enrol(_by_declaration(tenant, tenant.keeper))
    newer = SigningKey(SeededRng("newer owner").bytes(32))
    statement = tenant.root_statement(number=2, owner_key=newer.public, previous=bytes(32))
    key = _stranger()
    request = EnrolRequest(holder_key=key.public, secret=b"", order=tenant.order(key, by=newer), root=statement)
    assert stand.service.enrol(request).tenant == tenant.id
    late = _by_declaration(tenant, _stranger())
    assert refusal(lambda: stand.service.enrol(late)) == "forbidden", "the owner before signs nothing any more"


def test_a_declared_quota_is_what_a_known_tenant_has_whatever_invites_gave_it(stand: Stand) -> None:
    tenant = Tenant("declared")
    enrol(stand.provider, stand.service, tenant, quota=5 * MIB)
    stand.provider.admit([_declared(tenant, 3 * MIB)])
    assert stand.service.session(tenant.keeper.public).info().quota == 3 * MIB
    stand.provider.admit([])
    assert stand.service.session(tenant.keeper.public).info().quota == 3 * MIB, "it is not put out"


def test_a_declared_tenant_that_was_erased_here_does_not_come_back(stand: Stand) -> None:
    _admit(stand, _declared(stand.tenant, MIB))
    stand.service.erase(stand.tenant.erase_order())
    assert refusal(lambda: stand.service.enrol(_by_declaration(stand.tenant, stand.tenant.keeper))) == "forbidden"
    assert not [row for row in stand.provider.status()["tenants"] if row["id"] == stand.tenant.id.hex()]


def test_a_declared_root_has_the_one_tenant_that_its_quota_is_for(stand: Stand) -> None:
    first, second = Tenant("declared"), Tenant("declared", id=bytes(range(16)))
    assert first.root.public == second.root.public
    _admit(stand, _declared(first, MIB))
    assert stand.service.enrol(_by_declaration(first, first.keeper)).tenant == first.id
    assert refusal(lambda: stand.service.enrol(_by_declaration(second, _stranger()))) == "forbidden"
    assert stand.service.enrol(_by_declaration(first, first.keeper)).tenant == first.id
