package keyops

// FrozenOperations returns, for each operation of the table, whether an instance that was
// disassociated goes on with it: "yes", "other" for other keys than multi-Region ones, "no", or
// "" if the table does not say.
func FrozenOperations() map[string]string {
	words := map[whenFrozen]string{goesOn: "yes", keepsKeys: "other", closed: "no"}
	list := map[string]string{}
	for name, op := range operations {
		list[name] = words[op.frozen]
	}
	return list
}
