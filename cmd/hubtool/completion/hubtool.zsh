#compdef hubtool
# Completion of hubtool's commands and flags in zsh:
#   source <(hubtool completion zsh)
# for one shell, behind compinit in ~/.zshrc for all; or as a file _hubtool in a folder of fpath.

_hubtool() {
  local -a candidates
  candidates=("${(@f)$(hubtool completion zsh -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n ${candidates[1]} ]]; then
    _describe hubtool candidates
  else
    _files
  fi
}

if [[ ${funcstack[1]} == _hubtool ]]; then
  _hubtool "$@"
else
  compdef _hubtool hubtool
fi
