"""Use cases: what tenants, nodes and keepers do. Each decides in pure code and acts at the edge.

The modules of a node's night (node, backup, publish, audit, repair, status) never import what unwraps restore
or owner keys; import-linter holds it. Those of a keeper (keeper, tenant, enrol, browse, restore, recover) may.
"""
