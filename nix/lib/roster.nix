# The roster: one file that says which hosts there are, and everything that follows from it. Pure functions of values.
#
#   [host.nova]                          # as `replicator host new nova` prints it
#   identity = "..."                     # who it is as a provider: hash of its public key, 52 characters
#   wireguard = "..."                    # public half of its key in the mesh
#   address = "fd12::9"                  # in the mesh
#   endpoint = "nova.example.org:51820"  # where WireGuard reaches it from outside; without it, it reaches others
#   port = 7144                          # of its provider
#   capacity = "1T"                      # offered to all tenants; without it, it is no provider
#   owner = "rut"                        # owner, site, region, country: what copies are spread over
#   [tenant.bjorkby]
#   root = "..."                         # id of root in `replicator key list --json` on the keeper
#   quota = "400G"                       # at each provider; `quotas = { nova = "100G" }` for single ones
{ lib }:
let
  sizes = import ./sizes.nix { inherit lib; };
  domains = [
    "owner"
    "site"
    "region"
    "country"
  ];
  hostKeys = {
    identity = null;
    wireguard = null;
    address = null;
    endpoint = null;
    port = 7144;
    capacity = null;
    owner = null;
    site = null;
    region = null;
    country = null;
  };
  tenantKeys = {
    root = null;
    quota = null;
    quotas = { };
  };
  # The countries of the European Economic Area.
  eea = lib.splitString " " "AT BE BG HR CY CZ DK EE FI FR DE GR HU IE IS IT LI LT LU LV MT NL NO PL PT RO SE SI SK ES";
  bracketed = address: if lib.hasInfix ":" address then "[${address}]" else address;
  hash = 44; # characters of a WireGuard key in base64
  fitsIdentity = text: builtins.match "[a-z2-7]{52}" text != null;
  fitsWireguard =
    text: builtins.stringLength text == hash && builtins.match "[A-Za-z0-9+/]{43}=" text != null;
  fitsRoot = text: builtins.match "[0-9a-f]{64}" text != null;
  fitsEndpoint = text: builtins.match "[^/ ]+:[0-9]{1,5}" text != null;
  fitsSize = text: builtins.isString text && sizes.type.check text;
  twice =
    what: values:
    map (value: "${what} ${value} is given twice: each host has its own") (
      lib.unique (
        builtins.filter (value: lib.length (builtins.filter (other: other == value) values) > 1) values
      )
    );
in
rec {
  inherit domains eea;

  # From a TOML file, or an attribute set of the same shape, to one with every key there; throws all that is wrong.
  read =
    source:
    let
      raw = if builtins.isAttrs source then source else lib.importTOML source;
      found = {
        host = lib.mapAttrs (_: host: hostKeys // host) (raw.host or { });
        tenant = lib.mapAttrs (_: tenant: tenantKeys // tenant) (raw.tenant or { });
      };
      wrong = unknown raw ++ problems found;
    in
    if wrong == [ ] then
      found
    else
      throw "The roster cannot be meant:\n${lib.concatMapStringsSep "\n" (one: "- ${one}") wrong}";

  unknown =
    raw:
    let
      of =
        kind: known:
        lib.concatLists (
          lib.mapAttrsToList (
            name: values:
            map (
              key:
              "${kind}.${name}.${key} is an unknown key; there is ${lib.concatStringsSep ", " (builtins.attrNames known)}"
            ) (builtins.attrNames (removeAttrs values (builtins.attrNames known)))
          ) (raw.${kind} or { })
        );
    in
    map (key: "${key} is unknown: a roster has [host.NAME] and [tenant.NAME]") (
      builtins.attrNames (
        removeAttrs raw [
          "host"
          "tenant"
        ]
      )
    )
    ++ of "host" hostKeys
    ++ of "tenant" tenantKeys;

  # What is wrong with a roster, in sentences; none if it can be meant.
  problems =
    roster:
    let
      given =
        key:
        builtins.filter (value: value != null) (map (host: host.${key}) (builtins.attrValues roster.host));
      host =
        name: one:
        lib.optional (
          builtins.match "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?" name == null
        ) "host.${name} cannot be a host's name: small letters, digits and - inside, as in DNS"
        ++
          lib.optional (one.identity != null && !fitsIdentity one.identity)
            "host.${name}.identity is not an identity: copy all 52 characters that `replicator host new` printed"
        ++
          lib.optional (one.wireguard != null && !fitsWireguard one.wireguard)
            "host.${name}.wireguard is not a public key of WireGuard: copy all 44 characters that `replicator host new` printed"
        ++ lib.optional (
          one.endpoint != null && !fitsEndpoint one.endpoint
        ) "host.${name}.endpoint is not HOST:PORT"
        ++ lib.optional (
          one.capacity != null && !fitsSize one.capacity
        ) "host.${name}.capacity is not a size: write it like \"500G\""
        ++ lib.optional (
          one.capacity != null && one.identity == null
        ) "host.${name} offers disk and has no identity: `replicator host new ${name}` makes one"
        ++ lib.optional (
          one.capacity != null && one.address == null
        ) "host.${name} offers disk and has no address: say where in the mesh it is"
        ++ lib.concatMap (
          domain:
          lib.optional (
            one.capacity != null && one.${domain} == null
          ) "host.${name} offers disk and has no ${domain}: copies are spread over it"
        ) domains
        ++ lib.optional (
          one.country != null && builtins.match "[A-Z]{2}" one.country == null
        ) "host.${name}.country is not a two-letter code such as SE";
      promised =
        name: sizes.sum (map (tenant: tenant.quota) (builtins.attrValues (tenantsOf roster name)));
      tenant =
        name: one:
        lib.optional (one.root == null || !fitsRoot one.root)
          "tenant.${name}.root is not a root key: copy the 64 digits of the id of root in `replicator key list --json`"
        ++ lib.optional (
          one.quota != null && !fitsSize one.quota
        ) "tenant.${name}.quota is not a size: write it like \"400G\""
        ++ map (at: "tenant.${name}.quotas names ${at}, which offers no disk") (
          builtins.filter (at: (roster.host.${at}.capacity or null) == null) (builtins.attrNames one.quotas)
        )
        ++ map (at: "tenant.${name}.quotas.${at} is not a size: write it like \"400G\"") (
          builtins.filter (at: !fitsSize one.quotas.${at}) (builtins.attrNames one.quotas)
        );
      single = lib.concatLists (
        lib.mapAttrsToList host roster.host ++ lib.mapAttrsToList tenant roster.tenant
      );
      together =
        twice "identity" (given "identity")
        ++ twice "wireguard" (given "wireguard")
        ++ twice "address" (given "address")
        ++ twice "root" (map (one: one.root) (builtins.attrValues roster.tenant))
        ++ lib.concatMap (
          name:
          lib.optional (promised name > sizes.parse roster.host.${name}.capacity)
            "the quotas of all tenants at ${name} are more than its capacity of ${roster.host.${name}.capacity}: lower a quota, or offer more"
        ) (builtins.attrNames (providers roster));
    in
    if single != [ ] then single else together;

  providers = roster: lib.filterAttrs (_: host: host.capacity != null) roster.host;

  # HOST:PORT/IDENTITY, which `peer add` takes from a tenant that is declared there.
  addressOf = host: "${bracketed host.address}:${toString host.port}/${host.identity}";

  # The providers that a host's tenant may count on, as services.replicator.node.peers. Who shares owner or site with the
  # host is of its own household, and never counts as a copy.
  peersOf =
    roster: name:
    let
      me = roster.host.${name} or hostKeys;
      same = other: domain: me.${domain} != null && me.${domain} == other.${domain};
    in
    lib.mapAttrs (_: host: {
      address = addressOf host;
      inherit (host)
        owner
        site
        region
        country
        ;
      own = same host "owner" || same host "site";
    }) (removeAttrs (providers roster) [ name ]);

  # The tenants that a provider lets in, as services.replicator.provider.tenants.
  tenantsOf =
    roster: name:
    lib.filterAttrs (_: tenant: tenant.quota != null) (
      lib.mapAttrs (_: tenant: {
        inherit (tenant) root;
        quota = tenant.quotas.${name} or tenant.quota;
      }) roster.tenant
    );

  # The peers of a host in a full mesh. Two hosts of which neither has an endpoint do not reach each other directly.
  meshOf =
    roster: name:
    lib.concatLists (
      lib.mapAttrsToList (
        other: host:
        lib.optional (other != name && host.wireguard != null && host.address != null) (
          {
            name = other;
            publicKey = host.wireguard;
            allowedIPs = [ (host.address + (if lib.hasInfix ":" host.address then "/128" else "/32")) ];
          }
          // lib.optionalAttrs (host.endpoint != null) {
            inherit (host) endpoint;
            dynamicEndpointRefreshSeconds = 300; # a name at home changes its address
          }
          # Whoever is behind a NAT keeps its way open.
          // lib.optionalAttrs (roster.host.${name}.endpoint == null) { persistentKeepalive = 25; }
        )
      ) roster.host
    );

  # Why peers (name -> labels) cannot hold the minimum of a dataset, or its copies; [ ] if they can.
  unmet =
    peers: dataset: name:
    let
      words = map (word: if lib.toLower word == "eea" then eea else [ word ]) dataset.residency;
      allowed = lib.concatLists words;
      anywhere = dataset.residency == null || builtins.elem "any" (map lib.toLower dataset.residency);
      useful = builtins.filter (
        peer: !peer.own && (anywhere || peer.country == null || builtins.elem peer.country allowed)
      ) (builtins.attrValues peers);
      # A peer whose label is not said may be anywhere.
      places =
        domain:
        lib.length (
          lib.unique (
            map (peer: if peer.${domain} == null then peer.address else lib.toLower peer.${domain}) useful
          )
        );
      spread = if dataset.spread == null then [ "owner" ] else dataset.spread;
      # Shards lie apart as copies do: "4+2" are six, and a minimum of 2 leaves one over the four that suffice.
      coding = if dataset.coding == null then null else lib.splitString "+" dataset.coding;
      data = sizes.number (lib.head coding);
      short =
        what: wanted: shards:
        let
          least = if coding == null then wanted else shards;
          said = lib.optionalString (coding != null) ", which is ${toString least} shards";
        in
        lib.concatMap (
          domain:
          lib.optional (wanted != null && places domain < least)
            "dataset ${name} has a ${what} of ${toString wanted}${said}, and the peers that may hold it are of ${toString (places domain)} ${domain}s: add peers, or lower ${what} or spread"
        ) spread;
    in
    {
      minimum = short "minimum" dataset.minimum (dataset.minimum + data - 1);
      copies = short "promise" (if coding == null then dataset.copies else dataset.coding) (
        data + sizes.number (lib.last coding)
      );
    };

  # What the owner types on the keeper so that a roster becomes true.
  keeperCommands =
    roster: name:
    lib.mapAttrsToList (
      peer: one: "replicator peer add ${one.address} --name ${peer}${lib.optionalString one.own " --own"}"
    ) (peersOf roster name);
}
