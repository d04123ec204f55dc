package keyops_test

const killEnv = "KEYFERRY_KEYOPS_KILL"

func killChild() int { return 0 }
