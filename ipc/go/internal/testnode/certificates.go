package testnode

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Certificates are the files of an authority, and of a server on loopback and a client that it certifies.
type Certificates struct {
	Authority, ServerCert, ServerKey, ClientCert, ClientKey string
}

// NewCertificates writes new certificates to a directory.
func NewCertificates(dir string) (*Certificates, error) {
	authority, authorityKey, err := issue(filepath.Join(dir, "authority"), nil, nil)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"server", "client"} {
		if _, _, err := issue(filepath.Join(dir, name), authority, authorityKey); err != nil {
			return nil, err
		}
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	return &Certificates{Authority: path("authority.crt"), ServerCert: path("server.crt"), ServerKey: path("server.key"),
		ClientCert: path("client.crt"), ClientKey: path("client.key")}, nil
}

// issue writes a certificate and its key; without a parent, of an authority.
func issue(path string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:   pkix.Name{CommonName: filepath.Base(path)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}}
	if parent == nil {
		template.IsCA, template.BasicConstraintsValid = true, true
		template.KeyUsage |= x509.KeyUsageCertSign
		template.ExtKeyUsage, template.IPAddresses, template.DNSNames = nil, nil, nil
		parent, parentKey = template, key
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, nil, err
	}
	encodedKey, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	if err := writePEM(path+".crt", "CERTIFICATE", certificate); err != nil {
		return nil, nil, err
	}
	if err := writePEM(path+".key", "PRIVATE KEY", encodedKey); err != nil {
		return nil, nil, err
	}
	parsed, err := x509.ParseCertificate(certificate)
	return parsed, key, err
}

func writePEM(path, kind string, bytes []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}), 0o600)
}
