# Completion of hubtool's commands and flags in fish:
#   hubtool completion fish | source
# for one shell; for all: hubtool completion fish > ~/.config/fish/completions/hubtool.fish

function __hubtool
    set -l last (commandline -ct)
    set -l words (commandline -opc)
    set -l candidates (hubtool completion fish -- $words[2..] "$last" 2>/dev/null)
    if test (count $candidates) -gt 0
        printf '%s\n' $candidates
    else
        __fish_complete_path "$last"
    end
end

complete -c hubtool -f -a '(__hubtool)'
