# One disk for objects: btrfs, whose checksums name a bad sector before a tenant's audit does. Not copied on write: what
# is stored is written once, and rows are a database.
{
  disk,
  lib,
  ...
}:
let
  common = import ./common.nix { inherit disk lib; };
in
{
  disko.devices.disk.${disk.name} = {
    type = "disk";
    device = lib.head (lib.toList disk.devices);
    content = {
      type = "gpt";
      partitions.objects = {
        size = "100%";
        content = common.sealed {
          type = "btrfs";
          extraArgs = [ "-f" ];
          subvolumes."@replicator" = {
            inherit (disk) mountpoint;
            mountOptions = common.mountOptions ++ [ "compress=no" ];
          };
        };
      };
    };
  };
}
// common.unlock "/dev/disk/by-partlabel/disk-${disk.name}-objects"
