package hub

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// proxyFor is Go's choice of proxy, and ALL_PROXY, which Go does not read, where
// the scheme's own variable is not set.
func proxyFor(r *http.Request) (*url.URL, error) {
	p, err := http.ProxyFromEnvironment(r)
	if p != nil || err != nil {
		return p, err
	}
	all := envOr("ALL_PROXY", "all_proxy")
	if all == "" || bypassProxy(r.URL.Hostname(), envOr("NO_PROXY", "no_proxy")) {
		return nil, nil
	}
	if !strings.Contains(all, "://") {
		all = "http://" + all
	}
	u, err := url.Parse(all)
	if err != nil {
		return nil, fmt.Errorf("%w: ALL_PROXY is not an address", ErrInvalid)
	}
	return u, nil
}

// bypassProxy matches a host against NO_PROXY: names with their subdomains,
// addresses, networks, or * for everything. Loopback is never proxied, as in Go.
func bypassProxy(host, list string) bool {
	ip := net.ParseIP(host)
	if host == "localhost" || ip != nil && ip.IsLoopback() {
		return true
	}
	for _, entry := range strings.FieldsFunc(list, func(c rune) bool { return c == ',' || c == ' ' }) {
		if _, network, err := net.ParseCIDR(entry); err == nil {
			if ip != nil && network.Contains(ip) {
				return true
			}
			continue
		}
		name := strings.TrimPrefix(strings.TrimPrefix(entry, "*"), ".")
		if entry == "*" || host == name || strings.HasSuffix(host, "."+name) {
			return true
		}
	}
	return false
}
