// Command notation-vectors writes keys, certificates and envelopes that notation's own libraries made, for the tests of affix.
//
//	notation-vectors SUBJECT-DIGEST SUBJECT-SIZE FOLDER
//
// Times are fixed: certificates are valid from 2026 to 2125 unless their name says otherwise, and envelopes are signed in 2026.
package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
)

var (
	from     = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	until    = time.Date(2125, 12, 31, 23, 59, 59, 0, time.UTC)
	signedAt = time.Date(2026, 11, 23, 19, 4, 9, 0, time.UTC)
	folder   string
	serial   int64
)

type entity struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatal("usage: notation-vectors SUBJECT-DIGEST SUBJECT-SIZE FOLDER")
	}
	folder = os.Args[3]
	check(os.MkdirAll(folder, 0o755))
	size, ok := new(big.Int).SetString(os.Args[2], 10)
	if !ok {
		log.Fatal("the size is no number")
	}
	payload, err := json.Marshal(map[string]any{"targetArtifact": map[string]any{
		"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": os.Args[1], "size": size,
	}})
	check(err)

	root := issue(authority("root"), rsaKey(2048), nil)
	intermediate := issue(authority("intermediate"), ecKey(elliptic.P384()), root)
	rsa2048 := issue(signer("rsa-2048"), rsaKey(2048), intermediate)
	p256 := issue(signer("p256"), ecKey(elliptic.P256()), intermediate)
	write("root.crt", certificates(root))
	write("intermediate.crt", certificates(intermediate))
	for name, leaf := range map[string]*entity{"rsa-2048": rsa2048, "p256": p256} {
		write(name+".crt", certificates(leaf, intermediate, root))
		write(name+".short.crt", certificates(leaf, intermediate))
		write(name+".key", pkcs8(leaf.key))
		write(name+".jws.json", sign(jws.MediaTypeEnvelope, payload, time.Time{}, leaf, intermediate, root))
		write(name+".expiring.jws.json", sign(jws.MediaTypeEnvelope, payload, signedAt.Add(90*time.Hour), leaf, intermediate, root))
		write(name+".cose", sign(cose.MediaTypeEnvelope, payload, time.Time{}, leaf, intermediate, root))
	}
	write("rsa-2048.pkcs1.key", block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsa2048.key.(*rsa.PrivateKey))))
	sec1, err := x509.MarshalECPrivateKey(p256.key.(*ecdsa.PrivateKey))
	check(err)
	write("p256.sec1.key", block("EC PRIVATE KEY", sec1))
	for name, key := range map[string]crypto.Signer{
		"rsa-3072": rsaKey(3072), "rsa-4096": rsaKey(4096), "p384": ecKey(elliptic.P384()), "p521": ecKey(elliptic.P521()),
	} {
		alone := issue(signer(name), key, nil)
		write(name+".crt", certificates(alone))
		write(name+".key", pkcs8(alone.key))
		write(name+".jws.json", sign(jws.MediaTypeEnvelope, payload, time.Time{}, alone))
	}

	// What verifiers refuse, all for the key p256.
	refused := func(name string, change func(*x509.Certificate)) {
		template := signer(name)
		change(template)
		write("refused/"+name+".crt", certificates(issue(template, p256.key, root), root))
	}
	refused("key-encipherment", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageKeyEncipherment })
	refused("server-auth", func(c *x509.Certificate) {
		c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
	})
	refused("no-digital-signature", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageContentCommitment })
	refused("no-key-usage", func(c *x509.Certificate) { c.KeyUsage = 0 })
	refused("key-usage-not-critical", func(c *x509.Certificate) {
		c.KeyUsage = 0
		value, err := asn1.Marshal(asn1.BitString{Bytes: []byte{0x80}, BitLength: 1})
		check(err)
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Value: value}}
	})
	refused("extensions-malformed", func(c *x509.Certificate) {
		c.KeyUsage = 0
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{4, 1, 0}}}
	})
	refused("authority", func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true })
	refused("expired", func(c *x509.Certificate) { c.NotAfter = from.Add(24 * time.Hour) })

	below := func(name string, change func(*x509.Certificate)) {
		template := authority(name)
		change(template)
		issuer := issue(template, ecKey(elliptic.P256()), root)
		write("refused/"+name+".crt", certificates(issue(signer("leaf of "+name), p256.key, issuer), issuer, root))
	}
	below("issuer-no-authority", func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageCertSign })
	below("issuer-without-certificate-signing", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })
	narrow := authority("narrow root")
	narrow.MaxPathLenZero = true
	narrowRoot := issue(narrow, ecKey(elliptic.P256()), nil)
	narrowIssuer := issue(authority("too deep"), ecKey(elliptic.P256()), narrowRoot)
	write("refused/path-length.crt", certificates(issue(signer("leaf of too deep"), p256.key, narrowIssuer), narrowIssuer, narrowRoot))
	impostor := issue(authority("intermediate"), ecKey(elliptic.P384()), root)
	write("refused/issuer-of-the-same-name.crt", certificates(p256, impostor, root))
	write("refused/order.crt", certificates(p256, root, intermediate))
	write("refused/two-roots.crt", certificates(p256, intermediate, root, root))
	write("refused/rsa-1024.key", pkcs8(weak()))
}

func signer(name string) *x509.Certificate {
	return &x509.Certificate{Subject: subject(name), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}}
}

func authority(name string) *x509.Certificate {
	return &x509.Certificate{Subject: subject(name), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true}
}

func subject(name string) pkix.Name {
	return pkix.Name{CommonName: name, Organization: []string{"affix tests"}}
}

func issue(template *x509.Certificate, key crypto.Signer, issuer *entity) *entity {
	serial++
	template.SerialNumber = big.NewInt(serial)
	template.NotBefore = from
	if template.NotAfter.IsZero() {
		template.NotAfter = until
	}
	parent, by := template, key
	if issuer != nil {
		parent, by = issuer.certificate, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	check(err)
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		// Go refuses to read what one of the templates is about; its bytes are all that is needed.
		certificate = &x509.Certificate{Raw: der}
	}
	return &entity{certificate, key}
}

func sign(mediaType string, payload []byte, expiry time.Time, chain ...*entity) []byte {
	var certificates []*x509.Certificate
	for _, e := range chain {
		certificates = append(certificates, e.certificate)
	}
	local, err := signature.NewLocalSigner(certificates, chain[0].key)
	check(err)
	envelope, err := signature.NewEnvelope(mediaType)
	check(err)
	signed, err := envelope.Sign(&signature.SignRequest{
		Payload:       signature.Payload{ContentType: "application/vnd.cncf.notary.payload.v1+json", Content: payload},
		Signer:        local,
		SigningTime:   signedAt,
		Expiry:        expiry,
		SigningScheme: signature.SigningSchemeX509,
		SigningAgent:  "notation-vectors/1",
	})
	check(err)
	return signed
}

func rsaKey(bits int) crypto.Signer {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	check(err)
	return key
}

func weak() crypto.Signer {
	check(os.Setenv("GODEBUG", "rsa1024min=0"))
	return rsaKey(1024)
}

func ecKey(curve elliptic.Curve) crypto.Signer {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	check(err)
	return key
}

func pkcs8(key crypto.Signer) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	check(err)
	return block("PRIVATE KEY", der)
}

func certificates(chain ...*entity) []byte {
	var file []byte
	for _, e := range chain {
		file = append(file, block("CERTIFICATE", e.certificate.Raw)...)
	}
	return file
}

func block(label string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der})
}

func write(name string, content []byte) {
	file := filepath.Join(folder, name)
	check(os.MkdirAll(filepath.Dir(file), 0o755))
	check(os.WriteFile(file, content, 0o644))
}

func check(err error) {
	if err != nil {
		log.Fatal(fmt.Errorf("notation-vectors: %w", err))
	}
}
