# From kompis-os' org to what the modules take. Works on org as kompis-os evaluates it, and on org.toml as it is read:
# what is derived there (names, addresses, paths of public keys) is derived here likewise where it is missing.
{ lib }:
let
  hex4 = number: lib.toLower (lib.strings.fixedWidthString 4 "0" (lib.toHexString number));
  frequencies = {
    hourly = "hourly";
    daily = null; # the night
    weekly = "weekly";
    monthly = "monthly";
  };
  rules = [
    "last"
    "hourly"
    "daily"
    "weekly"
    "monthly"
    "yearly"
  ];
  settingsOf = host: (host.settings or { }).replicator or { };
in
rec {
  # The network that providers are reached in: the first of the host's vpns.
  vpnOf = host: if host.vpns or [ ] == [ ] then null else lib.head host.vpns;

  addressOf =
    org: name:
    let
      host = org.host.${name};
      vpn = vpnOf host;
    in
    if vpn == null then
      null
    else
      (host.network or { }).${vpn}.address or "${org.prefix}:${hex4 org.vpn.${vpn}.id}::${hex4 host.id}";

  # The public half of a host's replica-key, which is its identity; null while it has none.
  identityOf =
    org: name:
    let
      host = org.host.${name};
      template = org.public-artifacts.default or "public-keys/$class-$entity-$key.pub";
      relative = lib.replaceStrings [ "$class" "$entity" "$key" ] [ "host" name "replica-key" ] template;
      file =
        (host.publicKeys or { }).replica-key
          or (if org ? storePath then org.storePath + "/${relative}" else null);
    in
    if file != null && builtins.pathExists file then
      lib.removeSuffix "\n" (builtins.readFile file)
    else
      null;

  # "host:ROLE-OR-NAME": hosts with that role, or that host.
  select =
    org: selector:
    let
      word = lib.removePrefix "host:" selector;
      hosts = builtins.attrNames org.host;
      withRole = builtins.filter (name: builtins.elem word (org.host.${name}.roles or [ ])) hosts;
    in
    if !lib.hasPrefix "host:" selector then
      throw "'${selector}' selects nothing: write host:ROLE, such as host:archive, or host:NAME"
    else if withRole != [ ] then
      withRole
    else if org.host ? ${word} then
      [ word ]
    else
      throw "'${selector}' selects nothing: no host has the role ${word}, and none is called so";

  # The roster: hosts with the role archive offer their capacity, all others only have names. Tenants are those of
  # [service.backup.settings.tenant.NAME].
  rosterOf = org: {
    host = lib.mapAttrs (
      name: host:
      let
        said = settingsOf host;
      in
      {
        address = addressOf org name;
      }
      // lib.getAttrs (builtins.filter (key: said ? ${key}) [
        "owner"
        "site"
        "region"
        "country"
        "port"
      ]) said
      // lib.optionalAttrs (builtins.elem "archive" (host.roles or [ ])) {
        identity = identityOf org name;
        capacity =
          said.capacity
            or (throw "host.${name} is an archive and offers nothing: set host.${name}.settings.replicator.capacity, such as \"1T\"");
      }
    ) org.host;
    tenant = ((org.service.backup or { }).settings or { }).tenant or { };
  };

  stateOf = app: app.state or ((app.settings or { }).state or null);

  # The apps with a state on a host, by name.
  appsOn =
    org: name:
    lib.filterAttrs (_: app: builtins.elem name (app.run-on-hosts or [ ]) && stateOf app != null) (
      org.app or { }
    );

  # What [app.NAME.state] says, as one dataset: names of the hosts it goes to, when beside the nights, and its promise.
  datasetOf =
    org: host: app:
    let
      state = stateOf org.app.${app};
      where = "app.${app}.state";
      unknown = builtins.attrNames (
        removeAttrs state [
          "capture"
          "commit"
          "send"
          "keep"
          "copies"
          "minimum"
          "spread"
          "residency"
          "exclude"
        ]
      );
      frequency =
        what: word:
        if frequencies ? ${word} then
          word
        else
          throw "${where}.${what} is \"${word}\": there is ${lib.concatStringsSep ", " (builtins.attrNames frequencies)}";
      commit = frequency "commit" (state.commit or "daily");
      sends = lib.mapAttrs (selector: frequency "send.\"${selector}\"") (state.send or { });
      # Capture, commit and send are one run: each host that is sent to gets it as often as it is committed.
      rarer = builtins.filter (selector: sends.${selector} != commit) (builtins.attrNames sends);
      kept = removeAttrs (state.keep or { }) [ "snapshot" ];
      wrongRules = lib.concatMap (
        selector: builtins.filter (rule: !builtins.elem rule rules) (builtins.attrNames kept.${selector})
      ) (builtins.attrNames kept);
      names = builtins.filter (name: name != host) (
        lib.unique (lib.concatMap (select org) (builtins.attrNames sends))
      );
    in
    if unknown != [ ] then
      throw "${where}.${lib.head unknown} is an unknown key: there is capture, commit, send, keep, copies, minimum, spread, residency, exclude"
    else if sends == { } then
      throw "${where} is sent nowhere: add send.\"host:archive\" = \"${commit}\""
    else if rarer != [ ] then
      throw "${where}.send.\"${lib.head rarer}\" is ${sends.${lib.head rarer}} and commit is ${commit}: what is committed is sent in the same run; make them the same"
    else if lib.length (builtins.attrNames kept) > 1 then
      throw "${where}.keep has several selectors: all copies of a snapshot are kept or forgotten together; give one"
    else if wrongRules != [ ] then
      throw "${where}.keep: \"${lib.head wrongRules}\" is no rule: there is ${lib.concatStringsSep ", " rules}"
    else
      {
        providers = names;
        onCalendar = frequencies.${commit};
        capture = frequency "capture" (state.capture or commit);
        copies = state.copies or null;
        minimum = state.minimum or null;
        spread = state.spread or null;
        residency =
          let
            said = state.residency or null;
          in
          if said == null then null else lib.concatMap (lib.splitString ",") (lib.toList said);
        exclude = state.exclude or [ ];
        keep = if kept == { } then { } else lib.head (builtins.attrValues kept);
      };
}
