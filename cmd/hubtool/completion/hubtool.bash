# Completion of hubtool's commands and flags in bash:
#   source <(hubtool completion bash)
# for one shell, or the same line in ~/.bashrc for all.

_hubtool() {
  # The line is divided at blanks only: COMP_WORDS is divided at = and : as well.
  local words line=${COMP_LINE:0:COMP_POINT} IFS=$' \t\n'
  read -ra words <<<"$line"
  [[ $line == *[[:blank:]] ]] && words+=("")
  local last=${words[${#words[@]} - 1]} candidate
  COMPREPLY=()
  while IFS= read -r candidate; do
    # Readline replaces what is behind the = only.
    [[ $last == *=* && $COMP_WORDBREAKS == *=* ]] && candidate=${candidate#*=}
    COMPREPLY+=("$candidate")
  done < <("${1/#\~/$HOME}" completion bash -- "${words[@]:1}" 2>/dev/null)
}

# Where nothing is known, names of files are.
complete -o bashdefault -o default -F _hubtool hubtool
