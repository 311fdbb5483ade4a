"""A Linen network of one's own as a backbone, unchanged: adapters are put in from outside.

Start with `adapt`. `layers` traces the network once (`served` says which layers can carry adapters,
`followers` which norm follows which), `choose` picks among them, and `backbone` computes it with a
domain's variables: `calling` calls it, `intercept` puts them in, `moved` says where they are.
"""
