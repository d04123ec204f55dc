package gateway

import (
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// method is what the gateway knows of one RPC. The permission and the audit record are
// keyops's to check and to write; they stand here so that one table shows the whole API, and
// a test holds them against keyops.
type method struct {
	action   string        // permission, or both, such as kms:Encrypt; empty if none is needed
	resource resource      // what the permission is for
	audit    auditKind     // how the call is recorded
	class    class         // which calls share a rate
	maxBytes int           // largest request; of REST, largest body
	timeout  time.Duration // longest time that a call may take; 0 for streams that stay
	probe    bool          // served to every verified certificate, with or without a principal
}

// resource is what the permission of a method is for.
type resource string

const (
	onNothing resource = ""
	onAccount resource = "account" // the account's keys and aliases as a whole
	onKey     resource = "key"
	onAlias   resource = "alias and key"
)

// auditKind is how a call is recorded.
type auditKind string

const (
	auditNone       auditKind = ""           // probes
	auditManagement auditKind = "management" // answered once the record is on disk
	auditCrypto     auditKind = "crypto"     // answered once the record is queued
)

// class groups methods that share a rate.
type class string

const (
	classProbe  class = "probe"
	classRead   class = "read"
	classManage class = "manage"
	classCrypto class = "crypto"
)

const (
	smallRequest    = 64 << 10
	approvedRequest = 256 << 10 // room for the approvals of 32 operators

	quick = 10 * time.Second // reads and cryptography
	slow  = 60 * time.Second // what writes to the token or asks another Region
)

// methods has a row for every RPC that is served. One without a row is refused.
var methods = map[string]method{
	kmsv1.KeyService_CreateKey_FullMethodName:                 {"kms:CreateKey", onAccount, auditManagement, classManage, smallRequest, slow, false},
	kmsv1.KeyService_DescribeKey_FullMethodName:               {"kms:DescribeKey", onKey, auditManagement, classRead, smallRequest, quick, false},
	kmsv1.KeyService_ListKeys_FullMethodName:                  {"kms:ListKeys", onAccount, auditManagement, classRead, smallRequest, quick, false},
	kmsv1.KeyService_EnableKey_FullMethodName:                 {"kms:EnableKey", onKey, auditManagement, classManage, smallRequest, quick, false},
	kmsv1.KeyService_DisableKey_FullMethodName:                {"kms:DisableKey", onKey, auditManagement, classManage, smallRequest, quick, false},
	kmsv1.KeyService_ScheduleKeyDeletion_FullMethodName:       {"kms:ScheduleKeyDeletion", onKey, auditManagement, classManage, approvedRequest, quick, false},
	kmsv1.KeyService_CancelKeyDeletion_FullMethodName:         {"kms:CancelKeyDeletion", onKey, auditManagement, classManage, smallRequest, quick, false},
	kmsv1.KeyService_GetKeyLastUsage_FullMethodName:           {"kms:GetKeyLastUsage", onKey, auditManagement, classRead, smallRequest, quick, false},
	kmsv1.KeyService_EnableKeyRotation_FullMethodName:         {"kms:EnableKeyRotation", onKey, auditManagement, classManage, smallRequest, quick, false},
	kmsv1.KeyService_DisableKeyRotation_FullMethodName:        {"kms:DisableKeyRotation", onKey, auditManagement, classManage, smallRequest, quick, false},
	kmsv1.KeyService_GetKeyRotationStatus_FullMethodName:      {"kms:GetKeyRotationStatus", onKey, auditManagement, classRead, smallRequest, quick, false},
	kmsv1.KeyService_RotateKeyOnDemand_FullMethodName:         {"kms:RotateKeyOnDemand", onKey, auditManagement, classManage, smallRequest, slow, false},
	kmsv1.KeyService_ListKeyRotations_FullMethodName:          {"kms:ListKeyRotations", onKey, auditManagement, classRead, smallRequest, quick, false},
	kmsv1.KeyService_GetParametersForImport_FullMethodName:    {"kms:GetParametersForImport", onKey, auditManagement, classManage, smallRequest, slow, false},
	kmsv1.KeyService_ImportKeyMaterial_FullMethodName:         {"kms:ImportKeyMaterial", onKey, auditManagement, classManage, smallRequest, slow, false},
	kmsv1.KeyService_DeleteImportedKeyMaterial_FullMethodName: {"kms:DeleteImportedKeyMaterial", onKey, auditManagement, classManage, smallRequest, quick, false},
	kmsv1.KeyService_ReplicateKey_FullMethodName:              {"kms:ReplicateKey", onKey, auditManagement, classManage, smallRequest, slow, false},
	kmsv1.KeyService_UpdatePrimaryRegion_FullMethodName:       {"kms:UpdatePrimaryRegion", onKey, auditManagement, classManage, smallRequest, slow, false},
	kmsv1.KeyService_WriteOffKeyMaterial_FullMethodName:       {"kms:WriteOffKeyMaterial", onKey, auditManagement, classManage, approvedRequest, quick, false},
	kmsv1.KeyService_EvictReplica_FullMethodName:              {"kms:EvictReplica", onKey, auditManagement, classManage, approvedRequest, quick, false},
	kmsv1.KeyService_SuspendReplica_FullMethodName:            {"kms:SuspendReplica", onKey, auditManagement, classManage, approvedRequest, quick, false},
	kmsv1.KeyService_PromoteKey_FullMethodName:                {"kms:PromoteKey", onKey, auditManagement, classManage, approvedRequest, quick, false},
	kmsv1.KeyService_ListReplicas_FullMethodName:              {"kms:DescribeKey", onKey, auditManagement, classRead, smallRequest, quick, false},
	kmsv1.KeyService_CreateAlias_FullMethodName:               {"kms:CreateAlias", onAlias, auditManagement, classManage, smallRequest, quick, false},
	kmsv1.KeyService_UpdateAlias_FullMethodName:               {"kms:UpdateAlias", onAlias, auditManagement, classManage, smallRequest, quick, false},
	kmsv1.KeyService_DeleteAlias_FullMethodName:               {"kms:DeleteAlias", onAlias, auditManagement, classManage, smallRequest, quick, false},
	kmsv1.KeyService_ListAliases_FullMethodName:               {"kms:ListAliases", onAccount, auditManagement, classRead, smallRequest, quick, false},
	kmsv1.KeyService_GetKeyPolicy_FullMethodName:              {"kms:GetKeyPolicy", onKey, auditManagement, classRead, smallRequest, quick, false},
	kmsv1.KeyService_PutKeyPolicy_FullMethodName:              {"kms:PutKeyPolicy", onKey, auditManagement, classManage, smallRequest, quick, false},
	kmsv1.KeyService_ListKeyPolicies_FullMethodName:           {"kms:ListKeyPolicies", onKey, auditManagement, classRead, smallRequest, quick, false},
	kmsv1.KeyService_CreateGrant_FullMethodName:               {"kms:CreateGrant", onKey, auditManagement, classManage, smallRequest, quick, false},
	kmsv1.KeyService_ListGrants_FullMethodName:                {"kms:ListGrants", onKey, auditManagement, classRead, smallRequest, quick, false},
	kmsv1.KeyService_ListRetirableGrants_FullMethodName:       {"kms:ListRetirableGrants", onAccount, auditManagement, classRead, smallRequest, quick, false},
	kmsv1.KeyService_RetireGrant_FullMethodName:               {"kms:RetireGrant", onKey, auditManagement, classManage, smallRequest, quick, false},
	kmsv1.KeyService_RevokeGrant_FullMethodName:               {"kms:RevokeGrant", onKey, auditManagement, classManage, smallRequest, quick, false},
	kmsv1.KeyService_TagResource_FullMethodName:               {"kms:TagResource", onKey, auditManagement, classManage, smallRequest, quick, false},
	kmsv1.KeyService_UntagResource_FullMethodName:             {"kms:UntagResource", onKey, auditManagement, classManage, smallRequest, quick, false},
	kmsv1.KeyService_ListResourceTags_FullMethodName:          {"kms:ListResourceTags", onKey, auditManagement, classRead, smallRequest, quick, false},
	kmsv1.KeyService_UpdateKeyDescription_FullMethodName:      {"kms:UpdateKeyDescription", onKey, auditManagement, classManage, smallRequest, quick, false},
	kmsv1.KeyService_ExplainAccess_FullMethodName:             {"", onNothing, auditManagement, classRead, smallRequest, quick, false},

	kmsv1.CryptoService_Encrypt_FullMethodName:                             {"kms:Encrypt", onKey, auditCrypto, classCrypto, smallRequest, quick, false},
	kmsv1.CryptoService_Decrypt_FullMethodName:                             {"kms:Decrypt", onKey, auditCrypto, classCrypto, smallRequest, quick, false},
	kmsv1.CryptoService_ReEncrypt_FullMethodName:                           {"kms:ReEncryptFrom, kms:ReEncryptTo", onKey, auditCrypto, classCrypto, smallRequest, quick, false},
	kmsv1.CryptoService_GenerateDataKey_FullMethodName:                     {"kms:GenerateDataKey", onKey, auditCrypto, classCrypto, smallRequest, quick, false},
	kmsv1.CryptoService_GenerateDataKeyWithoutPlaintext_FullMethodName:     {"kms:GenerateDataKeyWithoutPlaintext", onKey, auditCrypto, classCrypto, smallRequest, quick, false},
	kmsv1.CryptoService_GenerateDataKeyPair_FullMethodName:                 {"kms:GenerateDataKeyPair", onKey, auditCrypto, classCrypto, smallRequest, quick, false},
	kmsv1.CryptoService_GenerateDataKeyPairWithoutPlaintext_FullMethodName: {"kms:GenerateDataKeyPairWithoutPlaintext", onKey, auditCrypto, classCrypto, smallRequest, quick, false},
	kmsv1.CryptoService_GenerateMac_FullMethodName:                         {"kms:GenerateMac", onKey, auditCrypto, classCrypto, smallRequest, quick, false},
	kmsv1.CryptoService_VerifyMac_FullMethodName:                           {"kms:VerifyMac", onKey, auditCrypto, classCrypto, smallRequest, quick, false},
	kmsv1.CryptoService_Sign_FullMethodName:                                {"kms:Sign", onKey, auditCrypto, classCrypto, smallRequest, quick, false},
	kmsv1.CryptoService_Verify_FullMethodName:                              {"kms:Verify", onKey, auditCrypto, classCrypto, smallRequest, quick, false},
	kmsv1.CryptoService_GetPublicKey_FullMethodName:                        {"kms:GetPublicKey", onKey, auditCrypto, classCrypto, smallRequest, quick, false},
	kmsv1.CryptoService_DeriveSharedSecret_FullMethodName:                  {"kms:DeriveSharedSecret", onKey, auditCrypto, classCrypto, smallRequest, quick, false},
	kmsv1.CryptoService_GenerateRandom_FullMethodName:                      {"kms:GenerateRandom", onAccount, auditCrypto, classCrypto, smallRequest, quick, false},

	kmsv1.RegionService_DescribeRegion_FullMethodName:    {"kms:DescribeRegion", onAccount, auditManagement, classRead, smallRequest, quick, false},
	kmsv1.RegionService_GetRegionHealth_FullMethodName:   {"kms:DescribeRegion", onAccount, auditManagement, classRead, smallRequest, quick, false},
	kmsv1.RegionService_ListPeers_FullMethodName:         {"kms:DescribeRegion", onAccount, auditManagement, classRead, smallRequest, quick, false},
	kmsv1.RegionService_GetCallerIdentity_FullMethodName: {"", onNothing, auditManagement, classRead, smallRequest, quick, false},

	kmsv1.SynchronizationService_CreateSynchronization_FullMethodName:       {"kms:CreateSynchronization", onAccount, auditManagement, classManage, smallRequest, quick, false},
	kmsv1.SynchronizationService_AssociateReplicaInstance_FullMethodName:    {"kms:AssociateReplicaInstance", onAccount, auditManagement, classManage, smallRequest, slow, false},
	kmsv1.SynchronizationService_DisassociateReplicaInstance_FullMethodName: {"kms:DisassociateReplicaInstance", onAccount, auditManagement, classManage, smallRequest, slow, false},
	kmsv1.SynchronizationService_UpdateSynchronization_FullMethodName:       {"kms:UpdateSynchronization", onAccount, auditManagement, classManage, smallRequest, quick, false},
	kmsv1.SynchronizationService_GetSynchronization_FullMethodName:          {"kms:GetSynchronization", onAccount, auditManagement, classRead, smallRequest, quick, false},
	kmsv1.SynchronizationService_ListSynchronizations_FullMethodName:        {"kms:ListSynchronizations", onAccount, auditManagement, classRead, smallRequest, quick, false},
	kmsv1.SynchronizationService_ListReplicaResources_FullMethodName:        {"kms:ListReplicaResources", onAccount, auditManagement, classRead, smallRequest, quick, false},
	kmsv1.SynchronizationService_ListSynchronizedResources_FullMethodName:   {"kms:ListSynchronizedResources", onAccount, auditManagement, classRead, smallRequest, quick, false},

	grpc_health_v1.Health_Check_FullMethodName: {"", onNothing, auditNone, classProbe, smallRequest, quick, true},
	grpc_health_v1.Health_List_FullMethodName:  {"", onNothing, auditNone, classProbe, smallRequest, quick, true},
	grpc_health_v1.Health_Watch_FullMethodName: {"", onNothing, auditNone, classProbe, smallRequest, 0, true},

	reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName: {"", onNothing, auditNone, classProbe, smallRequest, 0, false},
}

// largestRequest is what the gRPC server reads at most, before it knows the method's row.
func largestRequest() int {
	largest := 0
	for _, m := range methods {
		largest = max(largest, m.maxBytes)
	}
	return largest
}
