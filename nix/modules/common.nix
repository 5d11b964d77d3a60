# What the other modules share: the package, the roster, whom to tell.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.replicator;
  roster = import ../lib/roster.nix { inherit lib; };
in
{
  options.services.replicator = {
    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.replicator or (pkgs.callPackage ../package.nix { });
      defaultText = lib.literalMD "`pkgs.replicator` where an overlay has it, else this flake's";
      description = "The program.";
    };

    name = lib.mkOption {
      type = lib.types.strMatching "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
      default = config.networking.hostName;
      defaultText = lib.literalExpression "config.networking.hostName";
      description = "What this host is called in the roster and by its keeper.";
    };

    roster = lib.mkOption {
      type = lib.types.nullOr (lib.types.either lib.types.path (lib.types.attrsOf lib.types.anything));
      default = null;
      example = lib.literalExpression "./roster.toml";
      description = ''
        The hosts that know each other by public key, and the tenants they keep objects for (`nix/lib/roster.nix`
        describes it). Peers, tenants, labels, capacity and mesh follow from it; what is set here beside it wins.
      '';
    };

    onFailure = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "tell-somebody@%n.service" ];
      description = "Units that are started when one of replicator's units has failed and a person is needed.";
    };

    notify = lib.mkOption {
      type = lib.types.attrsOf lib.types.anything;
      default = { };
      example = {
        sendmail.to = [ "me@example.org" ];
        ping.url_file = "replicator-ping";
      };
      description = "The table `[notify]` of config.toml: who is told what is new, by the runs of a node, a maintainer or a drill host and by a provider's daemon. The program refuses what it does not know when the system is built. A sendmail has to do without the rights of another user or group, as msmtp's does.";
    };

    notifyCredentials = lib.mkOption {
      type = lib.types.attrsOf lib.types.externalPath;
      default = { };
      example = {
        replicator-ping = "/run/secrets/ping";
      };
      description = "Files that `notify` takes as credentials, by the names that it calls them. Nobody but the units can read them.";
    };

    hosts = lib.mkOption {
      type = lib.types.attrsOf lib.types.anything;
      internal = true;
      readOnly = true;
      default =
        if cfg.roster == null then
          {
            host = { };
            tenant = { };
          }
        else
          roster.read cfg.roster;
      defaultText = lib.literalMD "the roster, read";
      description = "The roster with every key there.";
    };
  };

  config.assertions = [
    {
      assertion = cfg.roster == null || cfg.hosts.host ? ${cfg.name};
      message = "services.replicator.name is \"${cfg.name}\", and the roster has no such host: add [host.${cfg.name}], as `replicator host new ${cfg.name}` prints it.";
    }
  ];
}
