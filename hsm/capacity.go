package hsm

import "github.com/miekg/pkcs11"

// Capacity is how much room a token has, as far as it says.
type Capacity struct {
	Objects     int    // in the index: what this Region keeps in the token
	Free, Total uint64 // bytes for private objects; both 0 if the token does not say
}

// Capacity asks the token how much room it has.
func (t *Token) Capacity() (Capacity, error) {
	conn, err := t.connected()
	if err != nil {
		return Capacity{}, err
	}
	i, err := t.driver.TokenInfo(conn.slot)
	if err != nil {
		return Capacity{}, err
	}
	c := Capacity{Objects: len(t.Objects())}
	c.Free, c.Total = room(i)
	return c, nil
}

// room reads the token's memory, which it may not know or may call boundless.
func room(i pkcs11.TokenInfo) (free, total uint64) {
	unknown := func(n uint) bool { return n == ^uint(0) || n == pkcs11.CK_UNAVAILABLE_INFORMATION }
	if unknown(i.FreePrivateMemory) || unknown(i.TotalPrivateMemory) || i.TotalPrivateMemory == 0 || i.FreePrivateMemory > i.TotalPrivateMemory {
		return 0, 0
	}
	return uint64(i.FreePrivateMemory), uint64(i.TotalPrivateMemory)
}
