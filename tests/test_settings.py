"""What an operator may write into config.toml, and what is said of everything else."""

from pathlib import Path

import pytest

from replicator.config import CONFIG_VARIABLE, MOST_SHARDS, read_window
from replicator.errors import HomeError
from replicator.format import sizes as format_sizes
from replicator.ids import Identity, address_form
from replicator.settings import (
    CommandChannel,
    Config,
    Handed,
    MetricsSettings,
    NotifySettings,
    NtfyChannel,
    PingChannel,
    SendmailChannel,
    keeper_commands,
    load_config,
)

IDS = [address_form(Identity(bytes([number]) * 32)) for number in range(3)]
WHOLE = f"""
[node]
spool = "/big/spool"
[dataset.docs]
paths = ["/srv/docs"]
copies = 3
minimum = 2
hook_failure = "warn"
also_borg = "ssh://a@b/./repo"
keep = {{ daily = 14, last = 3 }}
[peer.nova]
address = 'nova.example.org:7144/{IDS[0]}'
[peer.vega]
address = "vega.example.org:7144/{IDS[1]}"
owner = "rut"
country = "NO"
[peer.vera]
address = "[fd12::9]:7144/{IDS[2]}"
own = true
[provider]
data = "/srv/replicator"
capacity = "1T"
owner = "alice"
site = "cellar"
region = "umea"
country = 'SE' # provider
[tenant.bjorkby]
root = "{"a" * 64}"
quota = "400G"
"""


def read(folder: Path, text: str) -> Config:
    (folder / "config.toml").write_text(text)
    return load_config(str(folder))


def test_a_home_without_a_file_has_the_defaults(tmp_path: Path) -> None:
    assert load_config(str(tmp_path)) == Config()
    (tmp_path / "file").write_text("")
    assert load_config(str(tmp_path / "file")) == Config()


def test_big_paths_and_the_spools_limit_are_settings(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[node]\nspool = "/big/spool"\nspool_limit = "20Gi"\ncache = "/big/cache"\n')
    assert load_config(str(tmp_path)) == Config(spool="/big/spool", spool_limit=20 * 2**30, cache="/big/cache")
    (tmp_path / "config.toml").write_text("[node]\nspool_limit = 1000000\n")
    assert load_config(str(tmp_path)) == Config(spool_limit=1_000_000)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff", "utf-8"),
        (b"[node", "end of document"),
        (b"node = 5", "not a table"),
        (b"[node]\nspol = 'x'", "node.spol"),
        (b"[provider]\nx = 1", "provider.data is missing"),
        (b"[provider]\nwindow = '22-06'", "provider.window: '22-06' is no window"),
        (b"[provider]\nwindow = '22:00-06:00'\nzone = 'Mars'", "provider.window: 'Mars' is no time zone"),
        (b"[provider]\nwindow = 'always'\nzone = 'Europe/Oslo'", "provider.zone means something only with"),
        (b"[provider]\ndown = '100k'", "provider.down is 100 kB: at least 131 kB a second or 0, for no limit"),
        (b"[provider]\nup = 'fast'", "provider.up: 'fast' is not a size"),
        (b"[provider]\nstreams = 17", "provider.streams is 17, not a number from 1 to 16"),
        (b"[provider]\npull_from = ['vpn']", "provider.pull_from: 'vpn' is no network"),
        (b"[provider]\npull_from = ['nobody', 'public']", "provider.pull_from: nobody, and others"),
        (b"[provider]\npull_from = []", "provider.pull_from is empty"),
        (b"[provider]\nvia = ['a.example:1']", "does not say which relay that is"),
        (b"[provider]\nvia = ['nowhere']", "provider.via: 'nowhere' is not HOST:PORT"),
        (b"[provider]\nvia = []", "provider.via is empty"),
        (b"[provider]\nrelay_for = ['everybody']", "provider.relay_for: 'everybody' is not a provider's identity"),
        (b"[provider]\nrelay_for = []", "provider.relay_for is empty"),
        (b"[provider]\nrelay_rate = '0'", "provider.relay_rate of 0 passes nothing on"),
        (b"[tenant.a]\nroot = 'x'", "there is no .provider"),
        (b"[line]\nrate = 5", "line.rate is an unknown key"),
        (b"[line]\nnight = '22-06'", "line.night: '22-06' is no window"),
        (b"[line]\nnight = '22:00-06:00'\nzone = 'Mars'", "line.night: 'Mars' is no time zone"),
        (b"[line]\nup_day = '1M'", "line.up_day means something only with line.night"),
        (b"[line]\nup = '1k'", "line.up is 1 kB: at least"),
        (b"[line]\nup = 0", "line.up is 0 B: at least"),
        (b"[line]\ndown = 'fast'", "line.down: 'fast' is not a size"),
        (b"[node]\nspool_limt = '1G'", r"did you mean spool_limit\?"),
        (b"[dataset.a]\npaths = '/srv'", "dataset.a.paths is '/srv', not a list"),
        (b"[dataset.a]\npaths = ['srv']", "dataset.a.paths has 'srv', which is not absolute"),
        (b"[dataset.a]\ncopies = 2", "dataset.a.paths is missing"),
        (b"[dataset.a]\npaths = ['/a']\ncopies = '3'", "dataset.a.copies is '3', not a number from 1 to 64"),
        (b"[dataset.a]\npaths = ['/a']\ncopies = true", "dataset.a.copies is True"),
        (b"[dataset.a]\npaths = ['/a']\ncopies = 2\nminimum = 3", "minimum of 3 is more than 2 copies"),
        (b"[dataset.a]\npaths = ['/a']\ncoding = '4'", "dataset.a.coding: '4' is no coding"),
        (b"[dataset.a]\npaths = ['/a']\ncoding = '17+2'", r"coding: '17\+2' is no coding that packs can be cut by"),
        (b"[dataset.a]\npaths = ['/a']\ncoding = '4+2'\ncopies = 3", "coding and copies are two promises"),
        (b"[dataset.a]\npaths = ['/a']\ncoding = '4+2'\nminimum = 1", "minimum with coding is at least 2"),
        (b"[dataset.a]\npaths = ['/a']\ncoding = '4+2'\nminimum = 4", "minimum of 4 is more than 3 copies"),
        (b"[dataset.a]\npaths = ['/a']\nspread = ['house']", "spread has 'house'; there is owner, site"),
        (b"[dataset.a]\npaths = ['/a']\nkeep.dayly = 3", r"dataset.a.keep.dayly .* did you mean daily\?"),
        (b"[dataset.a]\npaths = ['/a']\nsnapshot = 'xfs'", "snapshot is 'xfs'; there is none"),
        (b"[dataset.a]\npaths = ['/a']\nalso_borg = 'repo'", "also_borg is 'repo'; write the absolute path"),
        (b"[dataset.a]\npaths = ['/a']\nhook_timeout = 'soon'", "hook_timeout: 'soon' is not a duration"),
        (b"[dataset.a]\npaths = ['/a']\nkeep_caches = 1", "neither true nor false"),
        (b"[dataset.a]\npaths = ['/a']\nexclude_larger_than = '0'", "nothing would be saved"),
        (b"[peer.a]\naddress = 'a.example.org:7144'", "has no identity"),
        (b"[peer.a]\naddress = 'a.example.org'", "is not HOST:PORT"),
        (b"[peer.a]", "peer.a.address is missing"),
        (b"[node]\nspool = 5", "not an absolute path"),
        (b"[node]\ncache = 'here'", "not an absolute path"),
        (b"[node]\nspool_limit = 'much'", "node.spool_limit: 'much' is not a size"),
        (b"[node]\nspool_limit = true", "node.spool_limit"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_the_key(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(HomeError, match=said) as caught:
        load_config(str(tmp_path))
    assert str(path) in caught.value.message


def test_what_a_machine_takes_of_its_line_is_a_setting(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        '[line]\nnight = "22:00-06:00"\nzone = "Europe/Stockholm"\nup = "5M"\nup_day = 0\ndown = "20M"\n'
    )
    line = load_config(str(tmp_path)).line
    assert line.night == read_window("22:00-06:00", "Europe/Stockholm")
    assert (line.up, line.up_day, line.down, line.down_day) == (5_000_000, 0, 20_000_000, None)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[node]\nspol = 1\ncache = 2\n[dataset.x]\n[unheard]\n")
    with pytest.raises(HomeError) as caught:
        load_config(str(tmp_path))
    for part in ("node.spol", "node.cache", "dataset.x.paths", "unheard is an unknown key"):
        assert part in caught.value.message


def test_a_file_that_the_environment_names_comes_first_and_must_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "node.toml"
    named.write_text('[node]\nspool = "/named"\n')
    (tmp_path / "config.toml").write_text('[node]\nspool = "/home"\n')
    monkeypatch.setenv(CONFIG_VARIABLE, str(named))
    assert load_config(str(tmp_path)).spool == "/named"
    named.unlink()
    with pytest.raises(HomeError, match=r"node\.toml: missing"):
        load_config(str(tmp_path))


def test_a_whole_file_is_read_as_it_is_meant(tmp_path: Path) -> None:
    config = read(tmp_path, WHOLE)
    dataset = config.datasets[0]
    assert (dataset.name, dataset.paths, dataset.copies, dataset.minimum) == ("docs", ("/srv/docs",), 3, 2)
    assert (dataset.keep, dataset.spread, dataset.hook_failure) == ((("last", 3), ("daily", 14)), None, "warn")
    assert [peer.name for peer in config.peers] == ["nova", "vega", "vera"]
    provider = config.provider
    assert provider is not None
    assert (provider.capacity, provider.lock_s, provider.grace_s) == (10**12, 30 * 86400, 14 * 86400)
    assert (provider.listen, provider.tenants[0].quota) == ("0.0.0.0:7144", 4 * 10**11)
    assert (provider.window, provider.zone, provider.streams) == (None, None, None)


def test_coding_and_whom_a_provider_fetches_from_are_declared_or_left_as_they_are(tmp_path: Path) -> None:
    config = read(tmp_path, WHOLE)
    assert config.provider is not None
    assert (config.datasets[0].coding, config.provider.pull_from, config.provider.notice_s) == (None, None, None)
    coded = WHOLE.replace("copies = 3", 'coding = "2+2"').replace("minimum = 2", "")
    reach = "pull_from = ['public', '10.8.0.0/24']"
    config = read(tmp_path, coded.replace("[tenant.bjorkby]", f"{reach}\n[tenant.bjorkby]"))
    assert config.provider is not None
    assert (config.datasets[0].coding, config.datasets[0].copies) == ((2, 2), None)
    assert config.provider.pull_from == ("public", "10.8.0.0/24")
    config = read(tmp_path, WHOLE.replace("[tenant.bjorkby]", "notice = '60d'\n[tenant.bjorkby]"))
    assert config.provider is not None
    assert config.provider.notice_s == 60 * 86400
    assert MOST_SHARDS == format_sizes.MOST_SHARDS
    with pytest.raises(HomeError, match=r"minimum is 2, which is 3 shards, and the declared peers .* are of 2 owners"):
        read(tmp_path, coded.replace('coding = "2+2"', 'coding = "2+2"\nminimum = 2'))


def test_whom_a_provider_relays_and_who_relays_it_is_declared(tmp_path: Path) -> None:
    relay = f"relay.example:7144/{address_form(Identity(bytes(32)))}"
    declared = f"via = ['{relay}']\nrelay_for = ['members', '{bytes(32).hex()}']\nrelay_rate = '2M'"
    provider = read(tmp_path, WHOLE.replace("[tenant.bjorkby]", f"{declared}\n[tenant.bjorkby]")).provider
    assert provider is not None
    assert (provider.via, provider.relay_for) == ((relay,), ("members", bytes(32).hex()))
    assert provider.relay_rate == 2_000_000
    nobody = "via = ['nobody']\nrelay_for = ['nobody']"
    provider = read(tmp_path, WHOLE.replace("[tenant.bjorkby]", f"{nobody}\n[tenant.bjorkby]")).provider
    assert provider is not None
    assert (provider.via, provider.relay_for, provider.relay_rate) == (("nobody",), ("nobody",), None)


def test_hours_of_a_provider_are_declared_with_their_zone_or_left_as_they_are(tmp_path: Path) -> None:
    def hours(words: str) -> tuple[str | None, str | None, int | None]:
        provider = read(tmp_path, WHOLE.replace("[tenant.bjorkby]", f"{words}\n[tenant.bjorkby]")).provider
        assert provider is not None
        return provider.window, provider.zone, provider.streams

    assert hours("window = '22:00-06:00'\nzone = 'Europe/Oslo'") == ("22:00-06:00", "Europe/Oslo", None)
    assert hours("window = '22:00-06:00'") == ("22:00-06:00", "", None)
    assert hours("window = 'always'\nstreams = 4") == ("", "", 4)


def test_rates_of_a_provider_are_declared_taken_back_or_left_as_they_are(tmp_path: Path) -> None:
    def rates(words: str) -> tuple[int | None, int | None]:
        provider = read(tmp_path, WHOLE.replace("[tenant.bjorkby]", f"{words}\n[tenant.bjorkby]")).provider
        assert provider is not None
        return provider.down, provider.up

    assert rates("") == (None, None)
    assert rates("down = '2M'\nup = 5_000_000") == (2_000_000, 5_000_000)
    assert rates("down = 0\nup = 'unlimited'") == (0, 0)


def test_what_only_the_keeper_can_do_is_a_list_of_commands(tmp_path: Path) -> None:
    assert keeper_commands(read(tmp_path, WHOLE)) == [
        f"replicator peer add nova.example.org:7144/{IDS[0]} --name nova",
        f"replicator peer add vega.example.org:7144/{IDS[1]} --name vega",
        "replicator peer set vega --owner rut --country NO",
        f"replicator peer add '[fd12::9]:7144/{IDS[2]}' --name vera --own",
        "replicator dataset set docs --keep-last 3 --keep-daily 14",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("400G", "1.2T"), "the quotas of all tenants are 1.2 TB, and provider.capacity is 1 TB"),
        ((IDS[1], IDS[0]), "peer.vega has the identity of another peer"),
        (("minimum = 2", "minimum = 3"), "dataset.docs.minimum is 3, and the declared peers .* are of 2 owners"),
        (("minimum = 2", "minimum = 2\nresidency = ['SE']\nspread = ['owner', 'site']"), "are of 1 owners"),
        (("minimum = 2", "minimum = 2\nresidency = ['XX']"), "unknown residency 'XX'"),
        (("a" * 64, "a" * 63), "is no root key"),
        (("'SE' # provider", "'Sweden'"), "provider.country: unknown country 'Sweden'"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    assert change[0] in WHOLE
    with pytest.raises(HomeError, match=said):
        read(tmp_path, WHOLE.replace(*change).replace("address = 'nova", "country = 'SE'\naddress = 'nova"))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(HomeError, match=r"config\.toml: Is a directory"):
        load_config(str(tmp_path))


WAYS = """
[notify]
name = "attic"
[notify.command]
run = "logger"
[notify.sendmail]
to = ["a@example.org"]
from = "b@example.org"
[notify.ntfy]
url_file = "/run/secrets/ntfy"
token_file = "replicator-ntfy-token"
[notify.ping]
url = "https://hc.example.org/uuid"
[metrics]
textfile = "/var/lib/node.prom"
listen = "[::1]:9144"
"""


def test_who_is_told_and_what_prometheus_reads_are_settings(tmp_path: Path) -> None:
    config = read(tmp_path, WAYS)
    assert config.notify == NotifySettings(
        name="attic",
        command=CommandChannel(run="logger"),
        sendmail=SendmailChannel(to=("a@example.org",), sender="b@example.org", program="/usr/sbin/sendmail"),
        ntfy=NtfyChannel(url=Handed(where="/run/secrets/ntfy"), token=Handed(where="replicator-ntfy-token")),
        ping=PingChannel(url=Handed(text="https://hc.example.org/uuid")),
    )
    assert config.metrics == MetricsSettings(textfile="/var/lib/node.prom", listen="[::1]:9144")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[notify.command]", "notify.command.run is missing"),
        ("[notify.mail]", "notify.mail is an unknown key"),
        ("[notify.sendmail]", "notify.sendmail.to is missing"),
        ("[notify.sendmail]\nto = ['nobody']", "'nobody', which is no address"),
        ("[notify.sendmail]\nto = ['a@b']\nfrom = 'x y@z'", "notify.sendmail.from has"),
        ("[notify.sendmail]\nto = ['a@b']\nprogram = 'sendmail'", "not an absolute path"),
        ("[notify.ntfy]", "notify.ntfy.url is missing; or give url_file"),
        ("[notify.ntfy]\nurl = 'ntfy.sh/x'", "no web address"),
        ("[notify.ntfy]\nurl = 'https:///x'", "no web address"),
        ("[notify.ntfy]\nurl = 'https://a:0/x'", "no web address"),
        ("[notify.ntfy]\nurl = 'https://a/x'\nurl_file = '/x'", "give one of the two"),
        ("[notify.ntfy]\nurl = 'http://a/x'\ntoken = 't'", "anybody on the way could read"),
        ("[notify.ping]\nurl_file = 'some/where'", "neither an absolute path nor the name"),
        ("[notify.ping]\nurl_file = 'mine:another-units'", "neither an absolute path nor the name"),
        ("[notify.ping]\nurl_file = 'mine %h'", "neither an absolute path nor the name"),
        ("[metrics]\nlisten = '0.0.0.0:9144'", "not on this machine alone"),
        ("[metrics]\nlisten = '9144'", "metrics.listen"),
        ("[metrics]\ntextfile = 'x.prom'", "not an absolute path"),
    ],
)
def test_a_way_to_somebody_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(HomeError, match=said):
        read(tmp_path, text)


def test_an_address_that_is_wrong_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(HomeError) as caught:
        read(tmp_path, "[notify.ping]\nurl = 'hc.example.org/secret-uuid'")
    assert "secret" not in caught.value.message
