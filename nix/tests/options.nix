# Every option is in the reference, with its type and description, and the reference has no other.
{ lib, self, ... }:
let
  page = builtins.readFile ../OPTIONS.md;
  row =
    one:
    let
      words = lib.splitString "." (lib.removePrefix "services.replicator." one.name);
      part = if lib.length words > 1 then "${lib.head words}." else "";
      flat =
        text:
        lib.concatStringsSep " " (
          builtins.filter (word: word != "") (
            lib.splitString " " (builtins.replaceStrings [ "\n" "|" ] [ " " "\\|" ] text)
          )
        );
      cells = [
        "`${lib.removePrefix "services.replicator.${part}" one.name}`"
        (flat one.type)
        (flat (if one.default == null then "required" else one.default))
        (flat one.description)
      ];
    in
    "| ${lib.concatStringsSep " | " cells} |";
  # Types are worded by nixpkgs; what they say differs from release to release.
  withoutType =
    text:
    let
      parts = lib.splitString " | " text;
    in
    [
      (lib.head parts)
      (lib.last parts)
    ];
  without = others: builtins.filter (one: !builtins.elem one others);
  wanted = map withoutType (map row self.lib.optionsDoc);
  written = map withoutType rows;
  rows = builtins.filter (lib.hasPrefix "| `") (lib.splitString "\n" page);
in
lib.runTests {
  testTheReferenceHasEveryOptionAndNoOther = {
    expr = {
      missing = without written wanted;
      tooMany = without wanted written;
    };
    expected = {
      missing = [ ];
      tooMany = [ ];
    };
  };
  testEveryOptionSaysWhatItIsFor = {
    expr = builtins.filter (one: builtins.stringLength one.description < 10) self.lib.optionsDoc;
    expected = [ ];
  };
}
