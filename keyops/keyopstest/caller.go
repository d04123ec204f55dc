package keyopstest

import (
	"github.com/google/uuid"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
)

// AdminIdentities lets user/admin of Account do everything that key policies leave to the
// account's identity policies, and nobody else anything.
const AdminIdentities = `{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Sid": "admin",
      "Effect": "Allow",
      "Principal": {"AWS": "arn:aws:iam::111122223333:user/admin"},
      "Action": "kms:*",
      "Resource": "*"
    }
  ]
}`

// Admin is a caller that may do everything under AdminIdentities.
func Admin() keyops.Caller { return User("admin") }

// User is a user of Account with a fresh request ID.
func User(name string) keyops.Caller { return UserOf(Account, name) }

// UserOf is a user of an account with a fresh request ID.
func UserOf(account arn.Account, name string) keyops.Caller {
	return keyops.Caller{
		Principal: arn.Principal{Partition: "aws", Account: account, Name: "user/" + name},
		SourceIP:  "192.0.2.1:4000",
		RequestID: uuid.NewString(),
	}
}
