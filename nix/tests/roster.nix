# The roster as values: what follows from it, and the sentences about one that cannot be meant.
{ lib, self, ... }:
let
  r = self.lib.roster;
  sizes = self.lib.sizes;
  id = letter: lib.concatStrings (lib.genList (_: letter) 52);
  key = letter: lib.concatStrings (lib.genList (_: letter) 43) + "=";
  root = lib.concatStrings (lib.genList (_: "0f") 32);
  good = {
    host = {
      nova = {
        identity = id "a";
        wireguard = key "a";
        address = "10.7.0.9";
        endpoint = "nova.example.org:51820";
        capacity = "1T";
        owner = "rut";
        site = "loft";
        region = "oslo";
        country = "NO";
      };
      vega = {
        identity = id "b";
        wireguard = key "b";
        address = "10.7.0.10";
        capacity = "500G";
        owner = "ali";
        site = "barn";
        region = "skane";
        country = "SE";
      };
      laptop.wireguard = key "c";
    };
    tenant.bjorkby = {
      inherit root;
      quota = "400G";
    };
  };
  change = path: value: lib.recursiveUpdate good (lib.setAttrByPath path value);
  problems =
    raw:
    let
      filled = {
        host = lib.mapAttrs (_: host: (r.read { host.x = { }; }).host.x // host) raw.host;
        tenant = lib.mapAttrs (
          _: tenant:
          {
            root = null;
            quota = null;
            quotas = { };
          }
          // tenant
        ) raw.tenant;
      };
    in
    r.unknown raw ++ r.problems filled;
  says = raw: text: {
    expr = lib.any (lib.hasInfix text) (problems raw);
    expected = true;
  };
  refused = raw: !(builtins.tryEval (builtins.deepSeq (r.read raw) true)).success;
in
lib.runTests {
  testShardsNeedAHouseholdEach = {
    expr =
      map
        (
          dataset:
          let
            peers = lib.genAttrs [ "a" "b" "c" "d" "e" ] (name: {
              own = false;
              address = name;
              owner = name;
              site = name;
              region = name;
              country = null;
            });
            found = r.unmet peers (
              {
                copies = null;
                coding = null;
                minimum = null;
                spread = null;
                residency = null;
              }
              // dataset
            ) "d";
          in
          [
            (found.minimum == [ ])
            (found.copies == [ ])
          ]
        )
        [
          {
            copies = 3;
            minimum = 2;
          }
          {
            copies = 6;
            minimum = 6;
          }
          {
            coding = "3+2";
            minimum = 2;
          }
          { coding = "4+2"; }
          {
            coding = "4+2";
            minimum = 2;
          }
          {
            coding = "4+2";
            minimum = 3;
          }
        ];
    expected = [
      [
        true
        true
      ]
      [
        false
        false
      ]
      [
        true
        true
      ]
      [
        true
        false
      ]
      [
        true
        false
      ]
      [
        false
        false
      ]
    ];
  };
  testAGoodOneHasNoProblems = {
    expr = problems good;
    expected = [ ];
  };
  testAnAddressIsWhatPeerAddTakes = {
    expr = lib.mapAttrs (_: peer: peer.address) (r.peersOf (r.read good) "laptop");
    expected = {
      nova = "10.7.0.9:7144/${id "a"}";
      vega = "10.7.0.10:7144/${id "b"}";
    };
  };
  testNobodyIsAPeerOfItself = {
    expr = builtins.attrNames (r.peersOf (r.read good) "nova");
    expected = [ "vega" ];
  };
  testQuotasCanDifferByProvider = {
    expr =
      map
        (
          name:
          (r.tenantsOf (r.read (change [ "tenant" "bjorkby" "quotas" ] { vega = "100G"; })) name)
          .bjorkby.quota
        )
        [
          "nova"
          "vega"
        ];
    expected = [
      "400G"
      "100G"
    ];
  };
  testWhoIsReachedWaitsAndWhoIsNotKeepsItsWayOpen = {
    expr = map (name: map (peer: peer ? persistentKeepalive) (r.meshOf (r.read good) name)) [
      "nova"
      "vega"
    ];
    expected = [
      [ false ]
      [ true ]
    ];
  };
  testTheKeeperIsToldWhatToType = {
    expr = r.keeperCommands (r.read good) "nova";
    expected = [ "replicator peer add 10.7.0.10:7144/${id "b"} --name vega" ];
  };
  testSizesAreExact = {
    expr = map sizes.parse [
      "500G"
      "500Gi"
      "1.5T"
      "0.05M"
      "12"
      "8T"
    ];
    expected = [
      500000000000
      536870912000
      1500000000000
      50000
      12
      8000000000000
    ];
  };
  testAMisspeltKeyIsNamed = says (change [
    "host"
    "nova"
    "capacty"
  ] "1T") "host.nova.capacty is an unknown key; there is address, capacity";
  testAnIdentityIsCopiedWhole = says (change [
    "host"
    "nova"
    "identity"
  ] "abc") "copy all 52 characters";
  testAnIdentityBelongsToOne = says (change [ "host" "nova" "identity" ] (
    id "b"
  )) "identity ${id "b"} is given twice";
  testAKeyOfTheMeshBelongsToOne = says (change [ "host" "nova" "wireguard" ] (
    key "b"
  )) "is given twice";
  testAnAddressBelongsToOne = says (change [
    "host"
    "nova"
    "address"
  ] "10.7.0.10") "address 10.7.0.10 is given twice";
  testAProviderSaysWhereItIs = says (change [
    "host"
    "nova"
    "region"
  ] null) "host.nova offers disk and has no region";
  testAProviderHasAKey = says (change [
    "host"
    "nova"
    "identity"
  ] null) "`replicator host new nova` makes one";
  testACountryIsACode = says (change [ "host" "nova" "country" ] "Norway") "two-letter code";
  testASizeIsOne = says (change [
    "host"
    "nova"
    "capacity"
  ] "much") "host.nova.capacity is not a size";
  testARootKeyIsCopiedWhole = says (change [ "tenant" "bjorkby" "root" ] "ab") "copy the 64 digits";
  testQuotasFit = says (change [
    "tenant"
    "bjorkby"
    "quota"
  ] "600G") "the quotas of all tenants at vega are more than its capacity of 500G";
  testAQuotaIsForAProvider = says (change [ "tenant" "bjorkby" "quotas" ] {
    laptop = "1G";
  }) "quotas names laptop, which offers no disk";
  testAWrongOneIsRefusedAsAWhole = {
    expr = map refused [
      (change [ "host" "nova" "identity" ] "abc")
      (change [ "hosts" ] { })
      good
    ];
    expected = [
      true
      true
      false
    ];
  };
}
