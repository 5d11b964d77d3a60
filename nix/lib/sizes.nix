# Sizes as people write them: 500G is 500 * 10^9 bytes, 500Gi is 500 * 2^30, as the program reads them.
{ lib }:
let
  pattern = "([0-9]{1,12})([.]([0-9]{1,3}))?([KMGTPkmgtp](i?))?B?";
  powers = {
    K = 1;
    M = 2;
    G = 3;
    T = 4;
    P = 5;
  };
  upper = builtins.replaceStrings [ "k" "m" "g" "t" "p" ] [ "K" "M" "G" "T" "P" ];
  power = base: n: if n == 0 then 1 else base * power base (n - 1);
  # Without leading zeros, which fromJSON does not take.
  whole = text: builtins.fromJSON (builtins.elemAt (builtins.match "0*([0-9]+)" text) 0);
in
rec {
  # A whole number as text.
  number = whole;

  type = lib.types.strMatching pattern // {
    description = "size like 500G (10^9) or 500Gi (2^30)";
  };

  # Bytes; throws what it cannot read.
  parse =
    text:
    let
      found = builtins.match pattern text;
      letter = builtins.elemAt found 3;
      unit =
        if letter == null then
          1
        else
          power (if builtins.elemAt found 4 == "i" then 1024 else 1000)
            powers.${upper (builtins.substring 0 1 letter)};
      fraction = builtins.elemAt found 2;
      thousandths = if fraction == null then 0 else whole (builtins.substring 0 3 (fraction + "00"));
    in
    if found == null then
      throw "'${text}' is not a size: write it like 500G (10^9) or 500Gi (2^30)"
    else
      whole (builtins.elemAt found 0) * unit + thousandths * unit / 1000;

  sum = texts: builtins.foldl' (total: text: total + parse text) 0 texts;
}
