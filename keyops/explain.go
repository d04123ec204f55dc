package keyops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/ciphertext"
	"github.com/keyferry/keyferry/keyops/keystate"
	"github.com/keyferry/keyferry/keyops/policy"
	"github.com/keyferry/keyferry/keyops/region"
)

// ExplainAccess decides as the door would, without doing anything, and says why. What a
// caller hears of a key is bounded by what it may know: everything with kms:GetKeyPolicy on
// the key, and otherwise, about itself, the yes or no that a call would tell it as well.
func (s *Service) ExplainAccess(ctx context.Context, caller Caller, in ExplainAccessInput) (ExplainAccessOutput, error) {
	if in.Principal == "" {
		in.Principal = caller.Principal.String()
	}
	t := target{invalid: s.checkQuestion(caller, &in), context: in.EncryptionContext}
	if t.invalid == nil {
		t.details = map[string]string{"explainedPrincipal": in.Principal, "explainedAction": in.Action}
	}
	return do(ctx, s, caller, "ExplainAccess", t, func(ctx context.Context, c *call) (ExplainAccessOutput, error) {
		q, err := s.ask(c, in)
		if err != nil {
			return ExplainAccessOutput{}, err
		}
		out := ExplainAccessOutput{Decisions: s.decisions(q)}
		if q.action == "kms:ReplicateKey" && (q.open || out.Decisions[0].Allowed) {
			out.Decisions = append(out.Decisions, s.explainReplica(ctx, c, q))
		}
		out.Allowed = !slices.ContainsFunc(out.Decisions, func(d AccessDecision) bool { return !d.Allowed })
		return out, nil
	})
}

// question is what is to be explained, and how much of it.
type question struct {
	asker  asker
	action string
	alias  string         // ARN of the alias that the action changes, or empty
	named  string         // ARN by which the key is named, or empty
	key    *Key           // nil if there is none, or the caller may not know of it
	policy *policy.Policy // that decides in place of the key's, or nil
	to     region.Name    // ReplicateKey: the replica's Region
	open   bool           // the caller may hear the reasons
}

// onlyConditions are the condition keys that a question can give values of: those that say
// something of a request. True marks what is not the caller's to choose in a call, but would
// have to happen to it.
var onlyConditions = map[string]bool{
	policy.SourceIP: true, policy.CurrentTime: true,
	policy.MultiRegion: false, policy.KeySpec: false, policy.KeyUsage: false, policy.KeyOrigin: false,
	policy.PrimaryRegion: false, policy.EncryptionAlgorithm: false, policy.SigningAlgorithm: false, policy.MacAlgorithm: false,
	policy.KeyAgreementAlgorithm: false, policy.MessageType: false, policy.DataKeyPairSpec: false, policy.ReEncryptOnSameKey: false,
	policy.GrantOperations: false, policy.GrantConstraintType: false, policy.GranteePrincipal: false, policy.RetiringPrincipal: false,
	policy.WrappingAlgorithm: false, policy.WrappingKeySpec: false, policy.ExpirationModel: false, policy.ValidTo: false,
	policy.BypassPolicyLockoutSafetyCheck: false, policy.ScheduleKeyDeletionPendingWindowInDays: false, policy.RotationPeriodInDays: false,
}

// checkQuestion refuses a question that has no answer, whatever keys there are.
func (s *Service) checkQuestion(caller Caller, in *ExplainAccessInput) error {
	if err := s.checkPrincipal("principal", in.Principal); err != nil {
		return err
	}
	if p, _ := arn.ParsePrincipal(in.Principal); p.Account != caller.Principal.Account {
		return refuse(ErrValidation, "The principal must be of the caller's account %s.", caller.Principal.Account)
	}
	if size := contextSize(in.EncryptionContext); size > ciphertext.MaxContextSize {
		return invalid("encryptionContext", "have at most %d bytes", ciphertext.MaxContextSize)
	}
	onAlias := strings.HasSuffix(in.Action, "Alias")
	switch {
	case onAlias && (in.AliasName == "" || in.KeyID == ""):
		return refuse(ErrValidation, "%s is decided on an alias and on a key; name both.", clip(in.Action))
	case !onAlias && in.AliasName != "":
		return refuse(ErrValidation, "%s changes no alias; name the key alone.", clip(in.Action))
	case (in.Action == "kms:ReplicateKey") != (in.ReplicaRegion != ""):
		return refuse(ErrValidation, "A replica's Region belongs to kms:ReplicateKey, and only there.")
	case in.Policy != "" && in.KeyID == "":
		return refuse(ErrValidation, "A key policy is about a key; name it.")
	}
	if in.AliasName != "" {
		if _, err := arn.ParseAliasName(in.AliasName); err != nil {
			return &Error{Reason: ErrInvalidAliasName, Message: err.Error(), cause: err}
		}
	}
	if in.ReplicaRegion != "" {
		if _, err := region.ParseName(in.ReplicaRegion); err != nil {
			return invalid("replicaRegion", "satisfy regular expression pattern: ^([a-z]+-){2,3}\\d+$")
		}
	}
	for key, values := range in.Conditions {
		if _, ok := onlyConditions[key]; !ok {
			return refuse(ErrValidation, "'%s' is not a condition key that a request decides; letter case counts here.", clip(key))
		}
		if len(values) == 0 {
			return invalid("conditions", "have values for %s", key)
		}
	}
	// The package's own words for an action that does not exist or acts on something else.
	resource := "*"
	if in.KeyID != "" {
		resource = s.keyARN(caller.Principal.Account, arn.NewKeyID(false))
	}
	if e := policy.Explain(policy.Request{Principal: in.Principal, Action: in.Action, Resource: resource}, nil, nil); e.Reason == policy.InvalidRequest.String() {
		return refuse(ErrValidation, "%s", clip(strings.Join(e.Advice, "; ")))
	}
	return nil
}

// ask finds what the question is about, and decides what the caller may hear.
func (s *Service) ask(c *call, in ExplainAccessInput) (*question, error) {
	who, err := arn.ParsePrincipal(in.Principal)
	if err != nil {
		return nil, internal(err) // checked before
	}
	self := who == c.caller.Principal
	q := &question{asker: askerFor(who), action: in.Action, to: region.Name(in.ReplicaRegion)}
	q.asker.encryption = in.EncryptionContext
	if self {
		q.asker.address = c.caller.SourceIP
	}
	if in.KeyID == "" {
		if q.open = self || c.caller.Principal.Name == "root"; !q.open {
			c.record.decision(policy.Decision{Reason: policy.NoAllow})
			return nil, refuse(ErrAccessDenied, "Without a key, %s may ask about itself only. Request ID: %s.", c.asker.arn, c.caller.RequestID)
		}
		q.asker.says = saysOf(in, nil)
		return q, nil
	}
	r, err := s.resolve(c, target{ref: in.KeyID})
	if err != nil {
		return nil, err
	}
	c.record.resource(r.named, r.id)
	q.named, q.asker.alias = r.named, r.alias
	if q.key = s.view.key(r.id); q.key != nil && q.key.Account != r.account {
		q.key = nil
	}
	const read = "kms:GetKeyPolicy"
	if q.key == nil {
		// Who may list the keys hears that there is none. For others it is a key like those
		// that they may not use.
		if err := s.missing(c, read, r); !self || !errors.Is(err, ErrAccessDenied) {
			return nil, err
		}
	} else {
		d := s.decide(&c.asker, read, q.key.arn, q.key)
		q.open = d.Allowed
		if !q.open && !self {
			return nil, s.denied(c, read, r.named, d)
		}
		q.named = r.named
		if q.open {
			q.named = q.key.arn
			c.record.resource(q.key.arn, q.key.ID)
		}
	}
	if !q.open && (in.Policy != "" || supposes(in.Conditions)) {
		return nil, s.denied(c, read, r.named, policy.Decision{Reason: policy.NoAllow})
	}
	if in.Policy != "" {
		if q.policy, err = parsePolicy([]byte(in.Policy)); err != nil {
			return nil, err
		}
	}
	if in.AliasName != "" {
		q.alias = s.aliasARN(who.Account, in.AliasName)
	}
	q.asker.says = saysOf(in, q.key)
	return q, nil
}

// supposes reports whether conditions are about circumstances rather than about the request.
func supposes(conditions map[string][]string) bool {
	for key := range conditions {
		if onlyConditions[key] {
			return true
		}
	}
	return false
}

// saysOf is what conditions may ask of the call: what the question gives, and for the rest
// what the operation takes by default.
func saysOf(in ExplainAccessInput, key *Key) []say {
	says := slices.DeleteFunc(defaults(in, key), func(x say) bool { return in.Conditions[x.key] != nil })
	for name, values := range in.Conditions {
		for _, value := range values {
			says = append(says, say{name, value})
		}
	}
	return append(says, say{policy.ReplicaRegion, in.ReplicaRegion})
}

func defaults(in ExplainAccessInput, key *Key) []say {
	var algorithm Algorithm
	if key != nil && len(key.use().algorithms) == 1 {
		algorithm = key.use().algorithms[0]
	}
	switch name := strings.TrimPrefix(in.Action, "kms:"); {
	case name == "Sign" || name == "Verify":
		return saysSigning(algorithm, "")
	case name == "GenerateMac" || name == "VerifyMac":
		return []say{{policy.MacAlgorithm, string(algorithm)}}
	case name == "DeriveSharedSecret":
		return []say{{policy.KeyAgreementAlgorithm, string(AlgorithmECDH)}}
	case name == "PutKeyPolicy":
		return []say{bypass(false)}
	case name == "CreateKey":
		spec, usage := SymmetricDefault, EncryptDecrypt
		if given := in.Conditions[policy.KeySpec]; len(given) > 0 {
			spec = KeySpec(given[0])
		}
		if uses := spec.uses(); len(uses) == 1 {
			usage = uses[0].usage
		}
		multiRegion := slices.Contains(in.Conditions[policy.MultiRegion], strconv.FormatBool(true))
		return append(saysOfNew(spec, usage, OriginToken, multiRegion, Primary), bypass(false))
	case key != nil && key.use().pair():
		return nil // more than one algorithm encrypts, and none by default
	default: // of the others only encrypting operations carry it
		return saysEncrypting("")
	}
}

// decisions are those of this Region: on the alias, and on the key or on neither.
func (s *Service) decisions(q *question) []AccessDecision {
	var list []AccessDecision
	if q.alias != "" {
		list = append(list, s.explain(q, q.alias, nil))
	}
	if q.named == "" {
		return append(list, s.explain(q, "*", nil))
	}
	return append(list, s.explain(q, q.named, q.key))
}

// explain explains one decision, or gives it alone to a caller that may not hear more.
func (s *Service) explain(q *question, resource string, key *Key) AccessDecision {
	e := policy.Explanation{Principal: q.asker.arn, Action: q.action, Resource: resource}
	if q.open {
		req := policy.Request{
			Principal: q.asker.arn, Action: q.action, Resource: resource,
			EncryptionContext: q.asker.encryption, Context: s.values(&q.asker, key),
		}
		var keyPolicy *policy.Policy
		var grants []policy.Grant
		if key != nil {
			keyPolicy, grants = key.policy, key.grantsFor(&q.asker)
			if q.action == "kms:RetireGrant" {
				grants = key.allRetirable()
			}
		}
		if q.policy != nil && key != nil {
			keyPolicy = q.policy
		}
		e = policy.Explain(req, keyPolicy, s.identities().For(q.asker.arn), grants...)
		e.Advice = append(e.Advice, s.stateAdvice(q.action, key)...)
	} else {
		if key != nil {
			resource = key.arn
		}
		e.Allowed = s.decide(&q.asker, q.action, resource, key).Allowed
		e.Advice = []string{"who may kms:GetKeyPolicy on the key is told the reasons"}
	}
	return AccessDecision{s.self.Region, e}
}

// stateAdvice says that the state of the key would refuse the call, which policies know
// nothing of. The decision stays theirs: a state passes.
func (s *Service) stateAdvice(action string, key *Key) []string {
	name := strings.TrimPrefix(action, "kms:")
	if strings.HasPrefix(name, "ReEncrypt") {
		name = "ReEncrypt"
	}
	if _, ok := operations[name]; !ok || key == nil {
		return nil
	}
	var why *Error
	if !errors.As(s.allows(key, name, keystate.Facts{}), &why) {
		return nil
	}
	return []string{fmt.Sprintf("whatever policies say, the state of the key refuses the call now, with %s: %s", why.Reason, why.Message)}
}

// allRetirable returns every grant with the permission of its retiring principal, for a
// question that does not say which is to be retired.
func (k *Key) allRetirable() []policy.Grant {
	var grants []policy.Grant
	for _, g := range k.Grants {
		grants = append(grants, k.grantsFor(&asker{retires: g.ID})...)
	}
	return grants
}

// peerAllow is the reason of a decision that another Region has made, and keeps to itself.
const peerAllow = "PeerAllow"

// explainReplica asks the replica's Region for its part, as ReplicateKey does.
func (s *Service) explainReplica(ctx context.Context, c *call, q *question) AccessDecision {
	d := AccessDecision{q.to, policy.Explanation{Principal: q.asker.arn, Action: "kms:CreateKey", Resource: "*"}}
	to, err := s.replicaRegion(q.key, string(q.to))
	if err == nil {
		err = s.maySend(q.key.Account, to.Region)
	}
	if err == nil {
		err = s.peers.CheckReplica(ctx, to.Region, ReplicaClaim{
			Source: s.self.Region, Key: q.key.ID, Account: q.key.Account, Principal: q.asker.principal,
			Spec: q.key.Spec, Usage: q.key.Usage, Origin: q.key.Origin,
			Materials: len(q.key.Set.Listed()), CorrelationID: c.caller.correlation(),
		})
	}
	var refusal *Error
	switch {
	case err == nil:
		d.Allowed, d.Reason = true, peerAllow
	case errors.Is(err, ErrPeerUnreachable):
		d.Reason = string(ErrDependencyTimeout)
		d.Advice = []string{fmt.Sprintf("Region %s did not answer; a call would be accepted here, and decided there once it is reached", q.to)}
	case errors.As(err, &refusal):
		d.Reason, d.Advice = string(refusal.Reason), []string{refusal.Message}
	default:
		d.Reason = string(answer(err).Reason)
	}
	return d
}
