{
  description = "replicator: sealed, deduplicated, geo-replicated backup; package and NixOS modules";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    disko.url = "github:nix-community/disko";
    disko.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs =
    {
      self,
      nixpkgs,
      disko,
    }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forEach = lib.genAttrs systems;
      pkgsOf = system: nixpkgs.legacyPackages.${system};
      packageOf = pkgs: pkgs.callPackage ./package.nix { };
      layouts = [
        "provider-xfs"
        "provider-btrfs"
        "provider-raid1-xfs"
      ];

      modules = {
        node = ./modules/node.nix;
        provider = ./modules/provider.nix;
        helpers = ./modules/helpers.nix;
        hosting = ./modules/hosting.nix;
        mesh = ./modules/mesh.nix;
        enrol = ./modules/enrol.nix;
        host = {
          imports = [
            disko.nixosModules.disko
            ./modules/host.nix
          ];
        };
        default = {
          imports = [
            ./modules/node.nix
            ./modules/helpers.nix
            ./modules/hosting.nix
            ./modules/mesh.nix
            ./modules/enrol.nix
          ];
        };
      };
      tests = {
        inherit lib self disko;
        system = "x86_64-linux";
        inherit (lib) nixosSystem;
      };
    in
    {
      packages = forEach (
        system:
        let
          replicator = packageOf (pkgsOf system);
        in
        {
          inherit replicator;
          default = replicator;
        }
      );

      overlays.default = final: _: { replicator = packageOf final; };

      nixosModules = modules // {
        # Roles for kompis-os: nix/kompis-os/README.md.
        kompis-os-archive = import ./kompis-os/archive.nix self;
        kompis-os-peer = import ./kompis-os/peer.nix self;
      };

      diskLayouts = lib.genAttrs layouts (name: import (./disk-layouts + "/${name}.nix"));

      lib = {
        roster = import ./lib/roster.nix { inherit lib; };
        sizes = import ./lib/sizes.nix { inherit lib; };
        kompis-os = import ./kompis-os/lib.nix { inherit lib; };
        # For nix/options.py, sorted as its page is.
        optionsDoc = import ./lib/options-doc.nix {
          inherit lib;
          modules = [
            modules.default
            modules.host
          ];
        };
      };

      checks = forEach (
        system:
        let
          pkgs = pkgsOf system;
          here = tests // {
            inherit pkgs system;
          };
          # Fails when the flake is evaluated, so `nix flake check --no-build` shows it too.
          evaluated =
            name: results:
            if results == [ ] then
              pkgs.emptyFile
            else
              throw "${name}: ${toString (lib.length results)} failed:\n${
                lib.concatMapStringsSep "\n" (one: builtins.toJSON one) results
              }";
          story = name: pkgs.testers.runNixOSTest (import (./tests/vm + "/${name}.nix") here);
        in
        {
          eval = evaluated "eval" (import ./tests/eval.nix here);
          roster = evaluated "roster" (import ./tests/roster.nix here);
          kompis-os = evaluated "kompis-os" (import ./tests/kompis-os.nix here);
          options = evaluated "options" (import ./tests/options.nix here);
        }
        // lib.mapAttrs' (
          name: _:
          lib.nameValuePair "vm-${lib.removeSuffix ".nix" name}" (story (lib.removeSuffix ".nix" name))
        ) (lib.filterAttrs (name: _: name != "common.nix") (builtins.readDir ./tests/vm))
      );

      # All of the tree when it is given no files.
      formatter = forEach (system: (pkgsOf system).nixfmt-tree);

      devShells = forEach (
        system:
        let
          pkgs = pkgsOf system;
        in
        {
          default = pkgs.mkShell {
            packages = [
              pkgs.gcc
              pkgs.gnumake
              pkgs.nixfmt
              (pkgs.python3.withPackages (packages: [ packages.pip ]))
            ];
            # The Makefile builds its own environment with pinned versions.
            shellHook = "echo 'make check: style, types, layers, tests'";
          };
        }
      );
    };
}
