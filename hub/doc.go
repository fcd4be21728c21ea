// Package hub is a client of the Hugging Face Hub that shares its cache with Python.
//
// [Client.Pull] brings a repository, or the part of it that patterns select, into
// the cache directory of huggingface_hub, so that what one of the two programs has
// downloaded the other finds. [Client.Push] sends a folder as one commit. Both can
// be interrupted at any byte, also by kill -9, and continue in a new process.
//
// [Client.Remote] reads files of a repository where they are, in ranges, and
// [Client.Draft] sends files one at a time for one commit at the end: together they
// let a program work on models that this disk has no room for.
//
// Every downloaded byte is hashed on its way to disk, and no file gets its final
// name before the hash agrees with the one the Hub announced: SHA-256 for files in
// LFS, git's blob id for the others.
//
// # Cache
//
// The layout is the one of huggingface_hub 2.4:
//
//	$HF_HUB_CACHE/
//	  .locks/models--owner--name/<etag>.lock          flock, never deleted
//	  models--owner--name/
//	    blobs/<etag>                                  content
//	    blobs/<etag>.<8 hex>.incomplete               in flight, resumed by the next run
//	    refs/main                                     commit, 40 hex digits, no newline
//	    snapshots/<commit>/<path> -> ../../blobs/<etag>
//	    trees/<commit>.json                           listing of a commit
//	    .no_exist/<commit>/<path>                     known to be absent
//
// Locks only avoid duplicate work. What keeps the cache sound is that content is
// written under a unique name, verified, and then renamed.
//
// # Environment
//
// [New] takes its defaults from the variables that Python users already set; an
// option always wins.
//
//	HF_ENDPOINT               the Hub's address (https://huggingface.co)
//	HF_TOKEN                  access token; HUGGING_FACE_HUB_TOKEN if it is empty
//	HF_TOKEN_PATH             file holding the token ($HF_HOME/token)
//	HF_HUB_DISABLE_IMPLICIT_TOKEN  send no token unless WithToken gives one
//	HF_HOME                   ($XDG_CACHE_HOME/huggingface or ~/.cache/huggingface)
//	HF_HUB_CACHE              the cache ($HF_HOME/hub)
//	HF_HUB_OFFLINE            make no request at all; TRANSFORMERS_OFFLINE as well
//	HF_HUB_ETAG_TIMEOUT       seconds to wait for a file's metadata (10)
//	HF_HUB_DOWNLOAD_TIMEOUT   seconds without a byte until a transfer counts as cut (10)
//	HF_HUB_DISABLE_SYMLINKS   put files, not links, into snapshots
//	HF_HUB_USER_AGENT_ORIGIN  appended to the User-Agent
//	HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE
//
// # Secrets
//
// The token is added by the transport, and only to requests whose scheme, host and
// port are the endpoint's: no redirect, listing or upload address can carry it
// elsewhere. Errors and logs show addresses without their query.
package hub
