// Package ecpublic finds the public key of an elliptic-curve private key that answers but
// shows nothing: from two of its signatures, or from one key agreement with the generator.
//
// Tokens keep no public half with a private key that was unwrapped, and a public key that
// the importer sends along would be the importer's word. All values here are public, so
// the arithmetic is plain and takes no care of time. The package is pure and safe for
// concurrent use.
package ecpublic

import (
	"crypto/elliptic"
	"math/big"
)

// Curve is a short Weierstrass curve y² = x³ + ax + b over a prime field, with a generator
// of prime order and cofactor 1.
type Curve struct {
	Name    string
	p, a, b *big.Int
	n       *big.Int
	g       Point
}

// Point is an affine point. The zero Point is the point at infinity.
type Point struct{ X, Y *big.Int }

// Infinite reports whether the point is the neutral element.
func (q Point) Infinite() bool { return q.X == nil }

// The curves that key specs name.
var (
	P256      = nist("P-256", elliptic.P256())
	P384      = nist("P-384", elliptic.P384())
	P521      = nist("P-521", elliptic.P521())
	Secp256k1 = &Curve{
		Name: "secp256k1", // SEC 2, section 2.4.1
		p:    hexadecimal("fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f"),
		a:    big.NewInt(0), b: big.NewInt(7),
		n: hexadecimal("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"),
		g: Point{
			hexadecimal("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"),
			hexadecimal("483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8"),
		},
	}
)

func nist(name string, c elliptic.Curve) *Curve {
	p := c.Params()
	return &Curve{
		Name: name, p: p.P, a: new(big.Int).Sub(p.P, big.NewInt(3)), b: p.B, n: p.N, g: Point{p.Gx, p.Gy},
	}
}

func hexadecimal(s string) *big.Int {
	n, ok := new(big.Int).SetString(s, 16)
	if !ok {
		panic("ecpublic: constant " + s)
	}
	return n
}

// Bytes is the length of a coordinate.
func (c *Curve) Bytes() int { return (c.p.BitLen() + 7) / 8 }

// Generator returns the generator as an uncompressed point.
func (c *Curve) Generator() []byte { return c.Marshal(c.g) }

// Marshal returns a finite point as 0x04 ‖ X ‖ Y.
func (c *Curve) Marshal(q Point) []byte {
	n := c.Bytes()
	out := make([]byte, 1+2*n)
	out[0] = 4
	q.X.FillBytes(out[1 : 1+n])
	q.Y.FillBytes(out[1+n:])
	return out
}

// lift returns the point with this x and an even y, or false if x is no coordinate of the
// curve.
func (c *Curve) lift(x *big.Int) (Point, bool) {
	if x.Sign() < 0 || x.Cmp(c.p) >= 0 {
		return Point{}, false
	}
	y := new(big.Int).ModSqrt(c.right(x), c.p)
	if y == nil {
		return Point{}, false
	}
	if y.Bit(0) == 1 {
		y.Sub(c.p, y)
	}
	return Point{new(big.Int).Set(x), y}, true
}

// right is x³ + ax + b.
func (c *Curve) right(x *big.Int) *big.Int {
	v := new(big.Int).Mul(x, x)
	v.Add(v, c.a).Mul(v, x).Add(v, c.b)
	return v.Mod(v, c.p)
}

func (c *Curve) negate(q Point) Point {
	if q.Infinite() {
		return q
	}
	y := new(big.Int).Neg(q.Y)
	return Point{q.X, y.Mod(y, c.p)}
}

func (c *Curve) add(q, r Point) Point {
	switch {
	case q.Infinite():
		return r
	case r.Infinite():
		return q
	}
	top, bottom := new(big.Int), new(big.Int)
	switch {
	case q.X.Cmp(r.X) != 0:
		top.Sub(r.Y, q.Y)
		bottom.Sub(r.X, q.X)
	case q.Y.Cmp(r.Y) != 0 || q.Y.Sign() == 0:
		return Point{}
	default:
		top.Mul(q.X, q.X).Mul(top, big.NewInt(3)).Add(top, c.a)
		bottom.Lsh(q.Y, 1)
	}
	slope := bottom.ModInverse(bottom.Mod(bottom, c.p), c.p)
	slope.Mul(slope, top).Mod(slope, c.p)
	x := new(big.Int).Mul(slope, slope)
	x.Sub(x, q.X).Sub(x, r.X).Mod(x, c.p)
	y := new(big.Int).Sub(q.X, x)
	y.Mul(y, slope).Sub(y, q.Y).Mod(y, c.p)
	return Point{x, y}
}

func (c *Curve) multiply(k *big.Int, q Point) Point {
	var sum Point
	for i := k.BitLen() - 1; i >= 0; i-- {
		sum = c.add(sum, sum)
		if k.Bit(i) == 1 {
			sum = c.add(sum, q)
		}
	}
	return sum
}
