"""Authentication and authorization in the laptop's account: signatures, principals, permissions and policies.

moto's own enforcement supports resources for S3 only (a grant on one KMS key refuses everything), skips most
conditions, and reads neither key policies nor session tags. It stays off, and this layer checks every request before
moto sees it.

Evaluated as on AWS: signatures, session tokens and their expiry; inline and attached identity policies; permissions
boundaries and session policies; bucket, key and repository policies; trust policies with conditions and session tags;
web identity tokens, by the published keys of their issuer; tags and boundaries of roles, tags of keys and objects; all
condition operators; policy variables, in policies of version 2012-10-17; the use of a key by S3 on the caller's behalf;
`iam:PassRole` for the roles of EKS.

moto must execute what was judged. A request that it could read as another operation, with other parameters or on
another key is refused, whoever sends it, and so is an operation of S3 or KMS that moto does not implement.

Not evaluated: service control policies, KMS grants, access control lists, access points, the policies of topics, queues
and the Glue catalogue, condition keys for the retention of one object. Requests must be signed in their headers:
nothing is public, and presigned URLs are refused. A call whose resource is unknown here needs a grant on `*`. Condition
keys that a request lacks are absent, so a grant that requires one never applies.
"""
