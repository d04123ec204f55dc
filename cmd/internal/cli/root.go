package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Streams are the command's standard streams.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// app is one run of the command.
type app struct {
	Streams
	region  string
	config  string
	json    bool
	timeout time.Duration
	ran     bool // the command line was right, and the command has begun
}

// Run runs the command and returns its exit code.
func Run(ctx context.Context, args []string, s Streams) int {
	a := &app{Streams: s}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	c, err := root.ExecuteContextC(ctx)
	if err != nil && !a.ran {
		err = usagef("%w; usage: %s", err, c.UseLine())
	}
	if err != nil {
		report(s.Err, err)
	}
	return exitCode(err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "keyferry",
		Short: "Use and manage keys of a Keyferry Region",
		Long: `Use and manage keys of a Keyferry Region.

KEY is a key ID, a key ARN, alias/NAME, or NAME, which stands for alias/NAME.
Data goes to standard output as it is; words go to standard error.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 denied, 4 not found, 5 the ciphertext,
signature or MAC does not hold, 6 related keys differ between Regions (drift),
7 a Region has a problem (doctor).`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version(),
	}
	root.SetVersionTemplate("keyferry {{.Version}}\n")
	f := root.PersistentFlags()
	f.StringVar(&a.region, "region", os.Getenv("KEYFERRY_REGION"), "`REGION` to call (default KEYFERRY_REGION, then default_region of the configuration)")
	f.StringVar(&a.config, "config", "", "configuration `FILE` (default KEYFERRY_CONFIG, then ~/.config/keyferry/config.yaml)")
	f.BoolVar(&a.json, "json", false, "print the server's answer as JSON")
	f.DurationVar(&a.timeout, "timeout", 30*time.Second, "give up after this long")

	key := &cobra.Command{Use: "key", Short: "Create and manage keys"}
	key.AddCommand(a.keyCreate("create"), a.keyShow("show KEY"), a.keyList("list"), a.keyReplicate("replicate KEY --to REGION"),
		a.keyReplicas("replicas KEY"), a.keyPromote("promote (KEY --to REGION | --force ...)"), a.keySuspend("suspend (KEY --replica REGION | --all-of REGION ...)"), a.keyEvict("evict (KEY --replica REGION | --all-of REGION ...)"), a.keyWriteOff("write-off KEY MATERIAL"), a.keyEnable("enable KEY"), a.keyDisable("disable KEY"), a.keyPublic("public KEY"),
		a.keyDelete("delete KEY"), a.keyUndelete("undelete KEY"), a.keyLastUsed("last-used KEY"),
		a.keyRotation(), a.keyRotate("rotate KEY"), a.keyRotations("rotations KEY"),
		a.importParameters("import-parameters KEY"), a.keyImport("import KEY --token FILE"), a.keyDeleteMaterial("delete-material KEY"),
		a.keyDescribeAs("describe KEY TEXT"), a.keyTag("tag KEY NAME=VALUE..."), a.keyUntag("untag KEY NAME..."), a.keyTags("tags KEY"))
	alias := &cobra.Command{Use: "alias", Short: "Name keys"}
	alias.AddCommand(a.aliasSet("set NAME KEY"), a.aliasList("list"), a.aliasDelete("delete NAME"))
	policy := &cobra.Command{Use: "policy", Short: "Say who may use a key, and why"}
	policy.AddCommand(a.policyGet("get KEY"), a.policyPut("put KEY FILE"), a.policyList("list KEY"), a.policyLint("lint FILE"), a.policyExplain("explain --action ACTION"))
	grant := &cobra.Command{Use: "grant", Short: "Allow single principals to use a key"}
	grant.AddCommand(a.grantCreate("create KEY --to PRINCIPAL --operation OPERATION"), a.grantList("list KEY"), a.grantRetirable("retirable PRINCIPAL"),
		a.grantRetire("retire (TOKEN | KEY GRANT)"), a.grantRevoke("revoke KEY GRANT"))
	reg := &cobra.Command{Use: "region", Short: "Show what a Region is and whom it knows"}
	reg.AddCommand(a.regionShow("show"), a.regionPeers("peers"))
	sealed := &cobra.Command{Use: "envelope", Short: "Encrypt files of any length"}
	sealed.AddCommand(a.envelopeSeal("seal KEY"), a.envelopeOpen("open [KEY]"))
	audit := &cobra.Command{Use: "audit", Short: "Check audit logs"}
	audit.AddCommand(a.auditVerify(), a.auditReconcile())

	reference := &cobra.Command{Use: "reference", Short: "Look up what the service does"}
	reference.AddCommand(a.referenceStates("states"))

	root.AddCommand(key, alias, policy, grant, reg, a.syncCommands(), sealed, audit, reference, a.approve(),
		a.encrypt("encrypt KEY"), a.decrypt("decrypt [KEY]"), a.reEncrypt("re-encrypt KEY"),
		a.generateDataKey("generate-data-key KEY"), a.generateDataKeyPair("generate-data-key-pair KEY --spec SPEC"),
		a.sign("sign KEY"), a.verify("verify KEY --signature FILE"), a.mac("mac KEY"), a.verifyMac("verify-mac KEY --mac FILE"),
		a.deriveSharedSecret("derive-shared-secret KEY --peer FILE"), a.random("random BYTES"), a.whoami("whoami"), a.drift("drift [KEY...]"), a.doctor("doctor"))
	for _, c := range []*cobra.Command{key, alias, policy, grant, reg, sealed, audit, reference} {
		c.Args = cobra.NoArgs
		c.RunE = needsCommand
	}
	root.Args = cobra.NoArgs
	root.RunE = needsCommand
	a.addAWSVerbs(root)
	a.markRun(root)
	return root
}

// addAWSVerbs adds AWS's names of the commands, hidden, for fingers that know them.
func (a *app) addAWSVerbs(root *cobra.Command) {
	for _, c := range []*cobra.Command{
		a.keyCreate("create-key"), a.keyShow("describe-key KEY"), a.keyList("list-keys"),
		a.keyReplicate("replicate-key KEY --to REGION"), a.keyPromote("update-primary-region KEY --to REGION"), a.keyEnable("enable-key KEY"), a.keyDisable("disable-key KEY"),
		a.keyDelete("schedule-key-deletion KEY"), a.keyUndelete("cancel-key-deletion KEY"), a.keyLastUsed("get-key-last-usage KEY"),
		a.rotationEnable("enable-key-rotation KEY"), a.rotationDisable("disable-key-rotation KEY"), a.rotationShow("get-key-rotation-status KEY"),
		a.keyRotate("rotate-key-on-demand KEY"), a.keyRotations("list-key-rotations KEY"),
		a.importParameters("get-parameters-for-import KEY"), a.keyImport("import-key-material KEY --token FILE"), a.keyDeleteMaterial("delete-imported-key-material KEY"),
		a.keyPublic("get-public-key KEY"), a.aliasSet("create-alias NAME KEY"), a.aliasSet("update-alias NAME KEY"),
		a.aliasList("list-aliases"), a.aliasDelete("delete-alias NAME"), a.policyGet("get-key-policy KEY"), a.policyPut("put-key-policy KEY FILE"), a.policyList("list-key-policies KEY"),
		a.grantCreate("create-grant KEY --to PRINCIPAL --operation OPERATION"), a.grantList("list-grants KEY"), a.grantRetirable("list-retirable-grants PRINCIPAL"),
		a.grantRetire("retire-grant (TOKEN | KEY GRANT)"), a.grantRevoke("revoke-grant KEY GRANT"),
		a.keyTag("tag-resource KEY NAME=VALUE..."), a.keyUntag("untag-resource KEY NAME..."), a.keyTags("list-resource-tags KEY"), a.keyDescribeAs("update-key-description KEY TEXT"),
		a.generateDataKey("generate-data-key-without-plaintext KEY"), a.generateDataKeyPair("generate-data-key-pair-without-plaintext KEY --spec SPEC"),
		a.mac("generate-mac KEY"), a.random("generate-random BYTES"), a.whoami("get-caller-identity"),
	} {
		c.Hidden = true
		root.AddCommand(c)
	}
}

// needsCommand refuses a command group that was called alone.
func needsCommand(c *cobra.Command, _ []string) error {
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return usagef("%s needs a command: %s", c.CommandPath(), strings.Join(names, ", "))
}

// markRun notes when a command begins: every error before is one of usage.
func (a *app) markRun(c *cobra.Command) {
	if run := c.RunE; run != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			a.ran = true
			return run(c, args)
		}
	}
	for _, sub := range c.Commands() {
		a.markRun(sub)
	}
}

// print writes the server's answer as JSON, without the spaces that protojson puts in at
// random.
func (a *app) print(m proto.Message) error {
	loose, err := protojson.Marshal(m)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, loose, "", "  "); err != nil {
		return err
	}
	b.WriteByte('\n')
	return a.write(b.Bytes())
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
