package alarm_test

import (
	"errors"
	"testing"

	logtest "github.com/sirupsen/logrus/hooks/test"

	"github.com/keyferry/keyferry/gateway/alarm"
)

func TestACauseIsCountedAndLoggedOnce(t *testing.T) {
	log, hook := logtest.NewNullLogger()
	s := alarm.New(log)
	s.Clear("files") // what never stood is no news
	if all := s.All(); len(all) != 1 || all[0].Count != 0 || all[0].Cause != nil {
		t.Errorf("what was looked at and is well is shown as %+v", all)
	}
	s.Raise("files", errors.New("broken"))
	s.Raise("files", errors.New("broken"))
	s.Raise("keys", errors.New("gone"))
	s.Raise("files", errors.New("broken in another way"))
	s.Clear("files")
	s.Clear("files")
	s.Raise("files", errors.New("broken"))

	var messages []string
	for _, e := range hook.AllEntries() {
		messages = append(messages, e.Message)
	}
	if len(messages) != 5 {
		t.Errorf("logged %q, want four raised and one cleared", messages)
	}
	all := s.All()
	if len(all) != 2 || all[0].Name != "files" || all[0].Count != 3 || all[0].Cause == nil || all[1].Name != "keys" || all[1].Count != 1 {
		t.Errorf("alarms are %+v", all)
	}
}

func TestNilSetForgets(t *testing.T) {
	var s *alarm.Set
	s.Raise("files", errors.New("broken"))
	s.Clear("files")
	if all := s.All(); all != nil {
		t.Errorf("a nil set holds %v", all)
	}
}
