# The parts of config.toml as options, and the file itself, which the program has read before the system is built.
{ lib, sizes }:
let
  rules = [
    "last"
    "hourly"
    "daily"
    "weekly"
    "monthly"
    "yearly"
  ];
  domain = lib.types.enum [
    "owner"
    "site"
    "region"
    "country"
  ];
  label =
    what:
    lib.mkOption {
      type = lib.types.nullOr lib.types.singleLineStr;
      default = null;
      description = "${what}, if it is not what the provider says of itself.";
    };
  internal = lib.mkOption {
    type = lib.types.listOf lib.types.str;
    default = [ ];
    internal = true;
    description = "States whose units belong to this dataset.";
  };
in
{
  dataset.options = {
    paths = lib.mkOption {
      type = lib.types.listOf lib.types.path;
      default = [ ];
      example = [ "/srv/photos" ];
      description = "Folders and files, each with its own name in the backup.";
    };
    copies = lib.mkOption {
      type = lib.types.nullOr (lib.types.ints.between 1 64);
      default = null;
      description = "Copies elsewhere that are promised; unset: 2 with fewer than five providers, else 3, when the dataset is new, and as it is afterwards.";
    };
    coding = lib.mkOption {
      type = lib.types.nullOr (lib.types.strMatching "[0-9]{1,2}\\+[0-9]{1,2}");
      default = null;
      example = "4+2";
      description = "In place of copies: cut packs into shards, any 4 of 6 of which suffice. From six households on.";
    };
    minimum = lib.mkOption {
      type = lib.types.nullOr (lib.types.ints.between 1 64);
      default = null;
      description = "Copies without which nothing is published; likewise 1, or 2. With coding as many shards more as suffice, less one.";
    };
    spread = lib.mkOption {
      type = lib.types.nullOr (lib.types.listOf domain);
      default = null;
      example = [
        "owner"
        "region"
      ];
      description = "What no two copies may share; owner unless set. What shares an owner or a site is one household.";
    };
    residency = lib.mkOption {
      type = lib.types.nullOr (lib.types.listOf (lib.types.strMatching "[A-Za-z]{2,3}"));
      default = null;
      example = [ "EEA" ];
      description = "Where copies may lie: EEA, EU, country codes, or any where root allows it.";
    };
    exclude = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [
        "*.tmp"
        "cache/"
      ];
      description = "Patterns in the syntax of .gitignore, of which the last that matches decides.";
    };
    excludeIfPresent = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ ".nobackup" ];
      description = "Of a folder with a file of this name, keep only that.";
    };
    excludeLargerThan = lib.mkOption {
      type = lib.types.nullOr sizes.type;
      default = null;
      description = "Leave out and name larger files.";
    };
    keepCaches = lib.mkEnableOption "keeping what is in cache folders (CACHEDIR.TAG)";
    oneFileSystem = lib.mkEnableOption "staying on the file system of each path";
    before = lib.mkOption {
      type = lib.types.lines;
      default = "";
      description = "Shell that the node's own user runs before each capture. For anything that needs another user there is `services.replicator.state`.";
    };
    after = lib.mkOption {
      type = lib.types.lines;
      default = "";
      description = "Shell that the node's own user runs after each capture, however that went.";
    };
    hookTimeout = lib.mkOption {
      type = lib.types.strMatching "[0-9]+[smhdw]";
      default = "10m";
      description = "How long either may take.";
    };
    hookFailure = lib.mkOption {
      type = lib.types.enum [
        "fail"
        "warn"
      ];
      default = "fail";
      description = "What a hook that fails does: fail the dataset, or be named as a gap.";
    };
    snapshot = lib.mkOption {
      type = lib.types.enum [
        "none"
        "btrfs"
        "zfs"
        "lvm"
        "auto"
      ];
      default = "none";
      description = "Snapshots that the program makes by itself need root: refused here, see `services.replicator.state.<name>.snapshot`.";
    };
    alsoBorg = lib.mkOption {
      type = lib.types.nullOr (lib.types.strMatching "(/|[a-z]+://|[^/: ]+:).*");
      default = null;
      example = "/srv/borg/photos";
      description = "A Borg repository, made by you, that also gets an archive of each night, as the node's own user. The node can read and delete it: it lies outside of every promise and is never counted as a copy.";
    };
    keep = lib.genAttrs rules (
      rule:
      lib.mkOption {
        type = lib.types.nullOr lib.types.ints.positive;
        default = null;
        description = "How many ${
          if rule == "last" then "of the newest" else rule
        } snapshots stay. A node cannot forget: `replicator-keeper-todo` prints the command for the keeper.";
      }
    );
    onCalendar = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "hourly";
      description = "When it is backed up beside the nights, alone.";
    };
    captures = internal;
    releases = internal;
  };

  # A dataset as config.toml has it.
  said = one: {
    inherit (one)
      paths
      copies
      coding
      minimum
      spread
      residency
      snapshot
      ;
    exclude = if one.exclude == [ ] then null else one.exclude;
    exclude_if_present = if one.excludeIfPresent == [ ] then null else one.excludeIfPresent;
    exclude_larger_than = one.excludeLargerThan;
    keep_caches = one.keepCaches;
    one_file_system = one.oneFileSystem;
    before = if one.before == "" then null else one.before;
    after = if one.after == "" then null else one.after;
    hook_timeout = one.hookTimeout;
    hook_failure = one.hookFailure;
    also_borg = one.alsoBorg;
    keep = if lib.all (value: value == null) (builtins.attrValues one.keep) then null else one.keep;
  };

  peer.options = {
    address = lib.mkOption {
      type = lib.types.strMatching "[^/ ]+:[0-9]{1,5}/[a-z2-7]{52}";
      example = "alice.example.org:7144/gyqifwzaw2cmxxgoudrdzui6wvrounlcy27fygy7roaij6u3khkq";
      description = "HOST:PORT/IDENTITY, as `replicator provider prove` prints it.";
    };
    owner = label "Whose it is";
    site = label "The house or room";
    region = label "What one disaster would hit as a whole";
    country = lib.mkOption {
      type = lib.types.nullOr (lib.types.strMatching "[A-Z]{2}");
      default = null;
      description = "Two-letter code, if it is not what the provider says of itself.";
    };
    own =
      lib.mkEnableOption "counting it to this tenant's own household, so that it never counts as a copy"
      // {
        description = "Whether it belongs to this tenant's own household; it never counts as a copy then.";
      };
  };

  # Read by the program itself: a misspelt key or a value that cannot be meant ends the build with its sentence.
  checked =
    pkgs: package: name: text:
    pkgs.writeTextFile {
      inherit name text;
      # Where the machine that builds can run what it builds.
      checkPhase = lib.optionalString (pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform) ''
        HOME=$TMPDIR ${lib.getExe package} check-config "$target"
      '';
    };

  # Tables of config.toml as they are.
  free = lib.types.attrsOf (
    lib.types.attrsOf (
      lib.types.oneOf [
        lib.types.bool
        lib.types.int
        lib.types.str
        (lib.types.listOf lib.types.str)
      ]
    )
  );

  # NixOS has its sendmail at a place of its own.
  notify =
    said:
    lib.recursiveUpdate (lib.optionalAttrs (said ? sendmail) {
      sendmail.program = "/run/wrappers/bin/sendmail";
    }) said;

  # Whether `notify` names a way to somebody.
  tells =
    notify:
    lib.any (way: notify ? ${way}) [
      "command"
      "sendmail"
      "ntfy"
      "ping"
    ];

  # What only the owner can make true, as commands for the keeper.
  todo =
    pkgs: file: exe:
    pkgs.writeShellScriptBin "replicator-keeper-todo" ''
      exec ${exe} check-config ${file}
    '';
}
