package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keyferry/keyferry/keyops/policy"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func (a *app) policyExplain(use string) *cobra.Command {
	req := &kmsv1.ExplainAccessRequest{}
	var key, alias, document string
	var pairs, conditions []string
	c := &cobra.Command{
		Use: use, Short: "Say whether a principal may do something, and why; exit code 3 if not", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if req.EncryptionContext, err = parseContext(pairs); err != nil {
				return err
			}
			if req.Conditions, err = parseConditions(conditions); err != nil {
				return err
			}
			if req.Policy, err = a.readPolicy(document); err != nil {
				return err
			}
			if !strings.HasPrefix(req.Action, "kms:") {
				req.Action = "kms:" + req.Action
			}
			if key != "" {
				req.KeyId = keyRef(key)
			}
			if alias != "" {
				req.AliasName = aliasName(alias)
			}
			return a.with(c.Context(), func(ctx context.Context, cl *client) error {
				if req.Principal, err = cl.principal(ctx, req.Principal); err != nil {
					return err
				}
				out, err := cl.keys.ExplainAccess(ctx, req)
				if err != nil {
					return err
				}
				return a.answer(out, req.Action)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&req.Principal, "principal", "", "`PRINCIPAL`: an ARN, or root, user/NAME or role/NAME of your own account (default yourself)")
	f.StringVar(&req.Action, "action", "", "`ACTION`, such as Decrypt or kms:Decrypt")
	f.StringVar(&key, "key", "", "`KEY`, for an action on a key")
	f.StringVar(&alias, "alias", "", "`NAME` of the alias, for an action on an alias")
	f.StringArrayVarP(&pairs, "context", "c", nil, "`KEY=VALUE` of the encryption context, repeated")
	f.StringVar(&req.ReplicaRegion, "to", "", "`REGION` of the replica, for ReplicateKey; it is asked for its part")
	f.StringArrayVar(&conditions, "condition", nil, "`KEY=VALUE` of another condition key, such as kms:GrantOperations=Decrypt, repeated")
	f.StringVar(&document, "policy", "", "`FILE`: decide as if this were the key policy")
	if err := c.MarkFlagRequired("action"); err != nil {
		panic(err) // the flag is above
	}
	return c
}

// answer prints an explanation; a refusal is the command's failure.
func (a *app) answer(out *kmsv1.ExplainAccessResponse, action string) error {
	if a.json {
		if err := a.print(out); err != nil {
			return err
		}
	}
	for i, d := range out.GetDecisions() {
		if a.json {
			break
		}
		text := fromDecision(d).String()
		if len(out.GetDecisions()) > 1 {
			text = "in " + d.GetRegion() + ": " + text
		}
		if i > 0 {
			text = "\n" + text
		}
		if err := a.write([]byte(text)); err != nil {
			return err
		}
	}
	if !out.GetAllowed() {
		return status.Error(codes.PermissionDenied, action+" would be refused")
	}
	return nil
}

// fromDecision is the answer as the package that has decided says it.
func fromDecision(d *kmsv1.AccessDecision) policy.Explanation {
	e := policy.Explanation{
		Principal: d.GetPrincipal(), Action: d.GetAction(), Resource: d.GetResource(),
		Allowed: d.GetAllowed(), Reason: d.GetReason(), Statement: d.GetStatement(), Advice: d.GetAdvice(),
	}
	if e.Reason == "" {
		e.Reason = "not told"
	}
	for _, c := range d.GetConsidered() {
		considered := policy.Considered{Statement: c.GetStatement(), Effect: policy.Effect(c.GetEffect()), Applies: c.GetApplies()}
		for _, el := range c.GetElements() {
			considered.Elements = append(considered.Elements, policy.Element{Name: el.GetName(), Matches: el.GetMatches(), Why: el.GetWhy()})
		}
		e.Considered = append(e.Considered, considered)
	}
	return e
}

// parseConditions reads condition keys and their values; a key that is repeated is a list.
func parseConditions(pairs []string) ([]*kmsv1.ConditionValues, error) {
	var list []*kmsv1.ConditionValues
	byKey := map[string]*kmsv1.ConditionValues{}
	for _, p := range pairs {
		key, value, ok := strings.Cut(p, "=")
		if !ok || key == "" {
			return nil, usagef("condition %q: want KEY=VALUE", p)
		}
		if byKey[key] == nil {
			byKey[key] = &kmsv1.ConditionValues{Key: key}
			list = append(list, byKey[key])
		}
		byKey[key].Values = append(byKey[key].Values, value)
	}
	return list, nil
}

// principal completes root, user/NAME and role/NAME to an ARN of the caller's account.
func (c *client) principal(ctx context.Context, text string) (string, error) {
	if text == "" || strings.HasPrefix(text, "arn:") {
		return text, nil
	}
	if text != "root" && !strings.HasPrefix(text, "user/") && !strings.HasPrefix(text, "role/") {
		return "", usagef("principal %q: want an ARN, root, user/NAME or role/NAME", text)
	}
	me, err := c.info.GetCallerIdentity(ctx, &kmsv1.GetCallerIdentityRequest{})
	if err != nil {
		return "", err
	}
	i := strings.LastIndex(me.GetArn(), ":")
	return me.GetArn()[:i+1] + text, nil
}
