package replication_test

import (
	"fmt"
	"testing"
)

func TestDumpAudit(t *testing.T) {
	sites := deploy(t, paris, east)
	id := sites[0].createSymmetric()
	sites[0].mustReplicate(id, sites[1])
	sites[0].synchronized(id, sites[1])
	for _, s := range sites {
		for _, l := range auditLines(t, s) {
			fmt.Println(l)
		}
	}
}
