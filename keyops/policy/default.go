package policy

import "fmt"

// DefaultKeyPolicy returns the document that a key gets when its creator gives none, as in
// AWS: the account's root may do everything, and leaves the rest to identity policies.
func DefaultKeyPolicy(partition, account string) []byte {
	return fmt.Appendf(nil, `{
  "Version": "%s",
  "Id": "key-default-1",
  "Statement": [
    {
      "Sid": "Enable IAM User Permissions",
      "Effect": "Allow",
      "Principal": {"AWS": "arn:%s:iam::%s:root"},
      "Action": "kms:*",
      "Resource": "*"
    }
  ]
}`, version, partition, account)
}
