package keyops

// Operation rows, for the test that compares them with the methods of Service.
func OperationRows() map[string]bool {
	rows := map[string]bool{}
	for name := range operations {
		rows[name] = true
	}
	return rows
}
