// As much JSON as the runner's protocol needs: one flat object a line in, values out.
#ifndef EDGE_DEPLOY_JSON_H
#define EDGE_DEPLOY_JSON_H

#include <map>
#include <string>
#include <vector>

namespace edge {

// Values of one object as text: strings without quotes, numbers as written, lists of strings or numbers joined by '\n'.
using Object = std::map<std::string, std::string>;

// Throws BadInput when the line is not a flat object.
Object parse_object(const std::string& line);

// With quotes and escapes.
std::string quoted(const std::string& text);

std::string list_of(const std::vector<double>& values);

}  // namespace edge

#endif
