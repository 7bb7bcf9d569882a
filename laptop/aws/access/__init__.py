"""Who may do what in the emulated account: signatures, principals, permissions and policies.

The emulator's own enforcement knows resources for S3 only (a grant on one KMS key refuses everything), skips most
conditions, and reads neither key policies nor session tags. So it stays off, and every request passes this layer first.

Judged, as on AWS: signatures, session tokens and their expiry; identity policies, inline and attached; permissions
boundaries and session policies; bucket, key and repository policies; trust policies with their conditions and session
tags; tokens of identity providers, by the keys that those publish; the tags and boundaries of roles, the tags of keys;
all condition operators, policy variables; the use of a key by S3 in the caller's name.

Not judged: service control policies, grants of KMS, access control lists, `iam:PassRole`, access points, the policies
of topics, queues and the Glue catalogue. Requests must be signed in their headers: nothing is public, and no address is
presigned. A call whose resource is not known here needs a grant on `*`. Condition keys that a request does not carry
here are absent, so that a grant that asks for one is void.
"""
